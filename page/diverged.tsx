/** Which services diverged, in what, and what to change. */
import { adviceFor } from '../src/cli/advice.ts';
import { formatCount, formatMs, formatPercent } from '../src/cli/output.ts';
import type { NodeStatus } from '../src/observe/status.ts';
import { Section } from './section.tsx';
import type { DivergedService } from './store.ts';
import { timeText } from './text.ts';

export function Diverged({ status, services }: { status: NodeStatus; services: readonly DivergedService[] }) {
  const { spent, advice, perSecond, pausedShare, forMs } = adviceFor(status);
  const { count } = status.divergences;
  return (
    <Section
      title="Divergences and advice"
      note={`${formatCount(count)} divergences. ${Number(perSecond.toFixed(2))} checkpoints per second over ${formatMs(forMs)}; the VM stood for ${formatPercent(pausedShare)} of the time.`}
    >
      {services.length === 0 ? (
        <p>Nothing has diverged since the page has known of events.</p>
      ) : (
        // A wide table is scrolled by keyboard too.
        // biome-ignore lint/a11y/noNoninteractiveTabindex: see above
        <section class="scroll" aria-label="Services that diverged" tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">Service</th>
                <th scope="col">Class</th>
                <th scope="col">What differed</th>
                <th scope="col">Times</th>
                <th scope="col">Last</th>
                <th scope="col">Last flow</th>
              </tr>
            </thead>
            <tbody>
              {services.map((one) => (
                <tr key={`${one.service} ${one.class}`}>
                  <th scope="row">{one.service}</th>
                  <td>{one.class}</td>
                  <td>{one.why}</td>
                  <td>{formatCount(one.count)}</td>
                  <td>{timeText(Date.parse(one.lastAt))}</td>
                  <td>{one.lastFlow}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
      {advice.length === 0 ? null : (
        <>
          <h3>Advice</h3>
          <dl class="advice">
            {advice.map(({ cause, text }) => (
              <div key={cause}>
                <dt>
                  {cause} {shareText(spent.find((one) => one.cause === cause)?.share)}
                </dt>
                <dd>{text}</dd>
              </div>
            ))}
          </dl>
        </>
      )}
    </Section>
  );
}

const shareText = (share: number | undefined): string =>
  share === undefined ? '' : `(${formatPercent(share)} of the pauses)`;
