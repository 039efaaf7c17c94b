#!/bin/sh
# Makes the certificates of these tests, which are valid for a century; their keys protect nothing.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
authority() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=$1" \
    -addext keyUsage=critical,keyCertSign -keyout "$work/$1.key" -out "$1.pem"
}
certificate() { # NAME AUTHORITY SAN FROM UNTIL
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$work/csr"
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\nx509_extensions=e
[p]\ncommonName=supplied\n[e]\nsubjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$work" "$work" "$work" "$3" >"$work/conf"
  : >"$work/index"
  openssl ca -batch -notext -config "$work/conf" -rand_serial -cert "$2.pem" -keyfile "$work/$2.key" -in "$work/csr" \
    -startdate "$4" -enddate "$5" -out "$1.pem"
}
authority ca
authority other-ca
certificate server ca IP:127.0.0.1,DNS:localhost 20260101000000Z 21260101000000Z
certificate expired ca IP:127.0.0.1,DNS:localhost 20250101000000Z 20250102000000Z
certificate future ca IP:127.0.0.1,DNS:localhost 21260101000000Z 21270101000000Z
certificate elsewhere ca DNS:elsewhere.example 20260101000000Z 21260101000000Z
certificate client ca DNS:node-a 20260101000000Z 21260101000000Z
certificate other-client other-ca DNS:node-a 20260101000000Z 21260101000000Z
