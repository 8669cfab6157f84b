import type { IncomingMessage } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { formatDuration } from '../core/duration.ts';
import type { Output } from '../core/ports.ts';
import type { Answer } from '../core/result.ts';
import { decodeEvents } from '../intake/socket-wire.ts';
import { nobodyThere, open, RETRY_MS, strangeAnswer } from './wire.ts';

/** One signal as it is sent, and how patient its sender is. */
export type Errand = {
  readonly socketPath: string;
  /** The body of the request; its `id` makes asking again safe. */
  readonly body: { readonly id: string } & Readonly<Record<string, unknown>>;
  /** How long a sidecar may be away, each time anew. */
  readonly patienceMs: number;
  /** Takes hooks' output. */
  readonly onOutput: (output: Output) => Promise<void>;
  /** Takes words about what is odd, once each. */
  readonly onWord: (word: string) => Promise<void>;
  readonly signal: AbortSignal;
};

/**
 * Sends a signal and resolves to its answer. Where the connection breaks, it asks again with the same id: the sidecar
 * does it once, and keeps the answer.
 * @throws OperationalError what the sidecar refuses it with; `engine-unavailable` when the patience is at its end
 */
export async function sendSignal(errand: Errand): Promise<Answer> {
  for (;;) {
    const answer = await attempt(errand);
    if (answer !== undefined) return answer;
    await errand.onWord('the sidecar is away; asking again');
    await pause(RETRY_MS, undefined, { signal: errand.signal }).catch(() => errand.signal.throwIfAborted());
  }
}

/** Undefined: it was taken up, and the connection broke before there was an answer. */
async function attempt({ socketPath, body, patienceMs, onOutput, signal }: Errand): Promise<Answer | undefined> {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(new Error('patience')), patienceMs);
  const either = AbortSignal.any([signal, patience.signal]);
  let why = 'does not take signals';
  try {
    for (;;) {
      const reply = await open(socketPath, { method: 'POST', path: '/v1/signals', body, signal: either });
      if (!('away' in reply)) {
        // The head of the answer comes with `accepted`: from here on it is waited for as long as it takes.
        clearTimeout(timer);
        return await read(socketPath, reply, onOutput, signal);
      }
      why = reply.away;
      await pause(RETRY_MS, undefined, { signal: either });
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!patience.signal.aborted) throw error;
    throw nobodyThere(socketPath, `none took it up within ${formatDuration(patienceMs)} (${why})`);
  } finally {
    clearTimeout(timer);
  }
}

async function read(
  socketPath: string,
  response: IncomingMessage,
  onOutput: Errand['onOutput'],
  signal: AbortSignal,
): Promise<Answer | undefined> {
  try {
    for await (const event of decodeEvents(response)) {
      if (event.type === 'answer') return event.answer;
      if (event.type === 'output') await onOutput(event.output);
      if (event.type === 'dropped') {
        const note = `sidehook: ${event.bytes} bytes of output are missing: they were not read in time\n`;
        await onOutput({ stream: 'err', bytes: Buffer.from(note) });
      }
    }
    if (response.complete) throw new Error('it ended without an answer');
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    if (isBroken(error)) return undefined;
    throw strangeAnswer(socketPath, error);
  }
}

/** A connection that broke, as against an answer that nobody understands. */
function isBroken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
}
