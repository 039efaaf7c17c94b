#!/bin/sh
# Makes a cluster with one table and starts PostgreSQL, as the user postgres.
BIN=/usr/lib/postgresql/17/bin
DATA=/var/lib/postgresql/data
$BIN/initdb -D $DATA --auth=trust --no-sync --no-locale --encoding=UTF8 --wal-segsize=1 > /tmp/initdb.log 2>&1 || cat /tmp/initdb.log
echo "host all all 0.0.0.0/0 trust" >> $DATA/pg_hba.conf
echo "create table counter (id int primary key, n int); insert into counter select generate_series(0, 63), 0;" |
  tr '\n' ' ' | $BIN/postgres --single -D $DATA postgres > /dev/null 2>&1
$BIN/postgres -D $DATA -c listen_addresses='*' -c fsync=off -c autovacuum=off -c unix_socket_directories=/run/postgresql > /dev/null 2>&1 &
