/**
 * The page's connection to the dashboard: reads the feed, and asks again when it ends.
 *
 * The token comes from the address's fragment, which browsers do not send; it is taken out of the address at once, and stays in
 * this tab (sessionStorage). EventSource cannot send a header, so fetch reads the server-sent events.
 */
import type { FeedMessages } from '../src/dashboard/messages.ts';

const TOKEN = 'colo-token';
const AGAIN_MS = 2000;
/** The feed has a message each second. A connection without one for so long is dead, though nobody closed it. */
const SILENT_MS_MAX = 10_000;
/** Far above any message: `hello` has three megabytes at most. */
const MESSAGE_CHARACTERS_MAX = 16 * 1024 * 1024;

export type Receive = {
  [Name in keyof FeedMessages]: (message: FeedMessages[Name]) => void;
} & {
  refused(message: string): void;
  lost(message: string): void;
};

/** Returns whether there was one. Other fragments are places in the page. */
export function takeTokenFromAddress(): boolean {
  const token = location.hash.slice(1);
  if (!/^[A-Za-z0-9_-]{32,}$/.test(token)) return false;
  sessionStorage.setItem(TOKEN, token);
  history.replaceState(null, '', location.pathname);
  return true;
}

export function useToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
}

const authorization = (): Record<string, string> => ({
  authorization: `Bearer ${sessionStorage.getItem(TOKEN) ?? ''}`,
});

/** Reads the feed for as long as the page is open. Ends only if the token is refused. */
export async function readFeed(receive: Receive): Promise<void> {
  for (;;) {
    try {
      await readOnce(receive);
      receive.lost('The dashboard ended the connection.');
    } catch (error) {
      if (error instanceof Refused) return receive.refused(error.message);
      receive.lost(error instanceof Error ? error.message : String(error));
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

class Refused extends Error {}

async function readOnce(receive: Receive): Promise<void> {
  const ended = new AbortController();
  let timer = setTimeout(() => ended.abort(), SILENT_MS_MAX);
  try {
    const response = await fetch('/feed', { headers: authorization(), signal: ended.signal });
    if (response.status === 401) throw new Refused((await errorOf(response)).message);
    if (!response.ok || response.body === null) throw new Error((await errorOf(response)).message);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => ended.abort(), SILENT_MS_MAX);
      const messages = (rest + value).split('\n\n');
      rest = messages.pop() ?? '';
      if (rest.length > MESSAGE_CHARACTERS_MAX) throw new Error('The dashboard sent too long a message.');
      for (const message of messages) pass(message, receive);
    }
  } finally {
    clearTimeout(timer);
    ended.abort();
  }
}

function pass(message: string, receive: Receive): void {
  const [, name, data] = /^event: (hello|view|events)\ndata: (.*)$/s.exec(message) ?? [];
  if (name === 'hello') receive.hello(JSON.parse(data) as FeedMessages['hello']);
  else if (name === 'view') receive.view(JSON.parse(data) as FeedMessages['view']);
  else if (name === 'events') receive.events(JSON.parse(data) as FeedMessages['events']);
}

export type ActionName = 'checkpoint' | 'failover' | 'protect' | 'stop' | 'capture-start' | 'capture-stop';

/** Resolves with the node's reply. Rejects with an Error whose message has the code. */
export async function act(name: ActionName, body: object): Promise<Record<string, unknown>> {
  const response = await fetch(`/act/${name}`, {
    method: 'POST',
    headers: { ...authorization(), 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (response.ok) return (await response.json()) as Record<string, unknown>;
  const { code, message } = await errorOf(response);
  throw new Error(`${code}: ${message}`);
}

async function errorOf(response: Response): Promise<{ code: string; message: string }> {
  try {
    return (await response.json()) as { code: string; message: string };
  } catch {
    return { code: `HTTP ${response.status}`, message: 'something else than the dashboard replied' };
  }
}
