import { useState } from 'preact/hooks';

export type TokenFormProps = { message: string; onToken(token: string): void };

export function TokenForm({ message, onToken }: TokenFormProps) {
  const [token, setToken] = useState('');
  return (
    <main id="main" class="narrow">
      <h1>colo</h1>
      <p role="alert" class="alarm warn">
        <strong>No access</strong> <span>{message}</span>
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          // Some paste the whole address.
          onToken(token.trim().split('#').at(-1) ?? '');
        }}
      >
        <label for="token">Token</label>
        <input
          id="token"
          type="password"
          autocomplete="off"
          required
          value={token}
          onInput={(event) => setToken(event.currentTarget.value)}
        />
        <button type="submit">Open</button>
      </form>
    </main>
  );
}
