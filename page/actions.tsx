/** What an operator may do. Each action says first what it means, and is done only when that is confirmed. */
import { useRef, useState } from 'preact/hooks';
import { formatMs } from '../src/cli/output.ts';
import type { NodeStatus } from '../src/observe/status.ts';
import { type ActionName, act } from './connection.ts';
import { Section } from './section.tsx';

type ActionSpec = {
  name: ActionName;
  label: string;
  /** why it cannot be done now; null if it can */
  hindrance(status: NodeStatus): string | null;
  /** what it will do */
  meaning(status: NodeStatus): string;
  /** asks for this text before it is done: what cannot be undone */
  ask?: { label: string; mustBe(status: NodeStatus): string };
  file?: true;
};

const needsProtection = ({ phase }: NodeStatus): string | null =>
  phase === 'protected' ? null : 'needs a protected pair';

const ACTIONS: readonly ActionSpec[] = [
  {
    name: 'checkpoint',
    label: 'Checkpoint',
    hindrance: (status) =>
      status.role === 'primary'
        ? needsProtection(status)
        : 'the primary takes checkpoints: open its dashboard',
    meaning: () => 'The VM stops for some milliseconds, and both VMs are equal afterwards.',
  },
  {
    name: 'failover',
    label: 'Failover',
    hindrance: needsProtection,
    meaning: ({ role, node, peer }) =>
      role === 'primary'
        ? `Node ${node} ends the pair and goes on ALONE: the VM is unprotected until a new first copy.`
        : `Node ${node} takes over from node ${peer.name ?? '?'}: clients notice a short pause, and the VM is unprotected until a new first copy.`,
  },
  {
    name: 'protect',
    label: 'Protect',
    hindrance: ({ phase, peer }) =>
      phase !== 'alone' ? 'needs a VM that runs alone' : peer.connected ? null : 'no other node is connected',
    meaning: ({ peer }) =>
      `The VM is copied to node ${peer.name ?? '?'}; at the end clients may wait for a second.`,
  },
  {
    name: 'capture-start',
    label: 'Start a capture',
    hindrance: () => null,
    meaning: ({ node }) =>
      `Frames of all ports are written to a new file on the host of node ${node}, up to 1 GiB.`,
    file: true,
  },
  {
    name: 'capture-stop',
    label: 'End the capture',
    hindrance: () => null,
    meaning: () => 'The file is complete then.',
  },
  {
    name: 'stop',
    label: 'Stop the node',
    hindrance: () => null,
    meaning: ({ role, phase, node }) =>
      role === 'primary' && phase !== 'protected'
        ? `Node ${node} has the only VM: THE SERVICE ENDS.`
        : `Node ${node} and its VM end; the other node goes on alone, unprotected. This page cannot start it again.`,
    ask: { label: 'Write the name of the node to confirm', mustBe: ({ node }) => node },
  },
];

export function Actions({ status, isStale }: { status: NodeStatus; isStale: boolean }) {
  const [result, setResult] = useState('');
  const [asked, setAsked] = useState<ActionSpec | null>(null);
  const run = async (spec: ActionSpec, body: object): Promise<void> => {
    const beganMs = Date.now();
    setResult(`${spec.label} is under way ...`);
    try {
      const reply = await act(spec.name, body);
      const file = typeof reply.path === 'string' ? `: ${reply.path}` : '';
      setResult(`${spec.label} was done in ${formatMs(Date.now() - beganMs)}${file}.`);
    } catch (error) {
      setResult(`${spec.label} was not done. ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  return (
    <Section title="Actions">
      <div class="actions">
        {ACTIONS.map((spec) => {
          const why = isStale ? 'the page is stale' : spec.hindrance(status);
          const id = `why-${spec.name}`;
          return (
            <div key={spec.name}>
              <button
                type="button"
                disabled={why !== null}
                aria-describedby={why === null ? undefined : id}
                onClick={() => setAsked(spec)}
              >
                {spec.label} ...
              </button>
              {why === null ? null : (
                <span id={id} class="note">
                  {why}
                </span>
              )}
            </div>
          );
        })}
      </div>
      <p role="status">{result}</p>
      {asked === null ? null : (
        <Question
          key={asked.name}
          spec={asked}
          status={status}
          onNo={() => setAsked(null)}
          onYes={(body) => {
            setAsked(null);
            void run(asked, body);
          }}
        />
      )}
    </Section>
  );
}

type QuestionProps = { spec: ActionSpec; status: NodeStatus; onNo(): void; onYes(body: object): void };

function Question({ spec, status, onNo, onYes }: QuestionProps) {
  const [text, setText] = useState('');
  const dialog = useRef<HTMLDialogElement | null>(null);
  const mustBe = spec.ask?.mustBe(status);
  const label = spec.file === true ? 'New file, with its whole path' : spec.ask?.label;
  const isReady = spec.file === true ? text.startsWith('/') : mustBe === undefined || text === mustBe;
  const show = (element: HTMLDialogElement | null): void => {
    if (element !== null && !element.open) element.showModal();
    dialog.current = element;
  };
  return (
    <dialog ref={show} aria-labelledby="question" onClose={onNo}>
      <form
        method="dialog"
        onSubmit={(event) => {
          event.preventDefault();
          if (isReady) onYes(spec.file === true ? { path: text } : {});
        }}
      >
        <h2 id="question">{spec.label}?</h2>
        <p>{spec.meaning(status)}</p>
        {label === undefined ? null : (
          <p>
            <label for="answer">{mustBe === undefined ? label : `${label}: ${mustBe}`}</label>
            <input
              id="answer"
              autocomplete="off"
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          </p>
        )}
        <div class="choice">
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" class="danger" disabled={!isReady}>
            {spec.label}
          </button>
        </div>
      </form>
    </dialog>
  );
}
