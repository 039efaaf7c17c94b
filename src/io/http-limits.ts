/** What the HTTP servers of a node and of a dashboard allow their peers. */

/** A connection that has not sent a whole request by then gives up its place: Node's own limit is a minute. */
const REQUEST_MS_MAX = 5000;
/** For `createServer`. */
export const SERVER_OPTIONS = {
  headersTimeout: REQUEST_MS_MAX,
  requestTimeout: REQUEST_MS_MAX,
  connectionsCheckingInterval: 1000,
  // A peer whose host has died leaves no connection behind.
  keepAlive: true,
  keepAliveInitialDelay: 2000,
};
