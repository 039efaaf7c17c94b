/** Starts the page: reads the feed into the store, and shows it at most once per frame of the screen. */
import 'uplot/dist/uPlot.min.css';
import './page.css';
import { render } from 'preact';
import { alarmsOf } from './alarms.ts';
import { App } from './app.tsx';
import { readFeed, takeTokenFromAddress, useToken } from './connection.ts';
import { EMPTY, type Store, withEvents, withHello, withView } from './store.ts';

/** Notices that nothing comes any more. */
const LOOK_MS = 1000;

const root = document.getElementById('page')!;
let store: Store = EMPTY;
let isWaiting = false;

function update(next: Store): void {
  store = next;
  if (isWaiting) return;
  isWaiting = true;
  // A page in the background is not drawn, and keeps nothing but the store.
  requestAnimationFrame(show);
}

function show(): void {
  isWaiting = false;
  const nowMs = Date.now();
  const [worst] = alarmsOf(store, nowMs);
  const pair = store.view?.status?.pair;
  document.title = [worst?.title, pair, 'colo'].filter((part) => part !== undefined).join(' - ');
  render(<App store={store} nowMs={nowMs} onToken={onToken} />, root);
}

function onToken(token: string): void {
  useToken(token);
  start();
}

function start(): void {
  update({ ...EMPTY });
  void readFeed({
    hello: (message) => update(withHello(store, message, Date.now())),
    view: (message) => update(withView(store, message, Date.now())),
    events: (message) => update(withEvents(store, message)),
    refused: (message) => update({ ...store, connection: { state: 'refused', message } }),
    lost(message) {
      const { connection } = store;
      const sinceMs = connection.state === 'lost' ? connection.sinceMs : Date.now();
      update({ ...store, connection: { state: 'lost', sinceMs, message } });
    },
  });
}

takeTokenFromAddress();
// The same page with another token in its address is not loaded again by the browser.
addEventListener('hashchange', () => {
  if (takeTokenFromAddress()) location.reload();
});
start();
setInterval(() => update(store), LOOK_MS);
