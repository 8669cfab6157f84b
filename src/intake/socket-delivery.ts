import type { ServerResponse } from 'node:http';
import type { Clock, Delivery, Lease, Output } from '../core/ports.ts';
import type { Request } from '../core/request.ts';
import { encodeEvent, type WireEvent } from './socket-wire.ts';

/** At most this much of a hook's output in one line. */
const LARGEST_PIECE = 64 * 1024;

/**
 * How long a hook waits for a client that reads nothing (it is stopped, or its own reader is). Then its output is
 * dropped, and counted, until the client reads again: a paused client loses no run, but neither may it keep a
 * workload down for as long as it likes.
 */
const STALLED_MS = 5 * 60_000;

/** How long an answer may take to get into the kernel's hands; a client that reads nothing can ask for it again. */
const ANSWER_MS = 1_000;

/** A request that came over a socket, and the response that is its way back. */
export type SocketDelivery = Delivery & {
  /** Whether the client went away before anyone took its request up: then nothing is to be done. */
  isWithdrawn(): boolean;
  /** Tells the client that its request was taken up. */
  accept(): void;
  isAnswered(): boolean;
};

/** Makes a delivery of one parsed request. What it writes is bounded: one piece for each hook that prints. */
export function makeDelivery(request: Request, sender: Lease, response: ServerResponse, clock: Clock): SocketDelivery {
  let answered = false;
  let droppedBytes = 0;

  function isOpen(): boolean {
    return !answered && !response.destroyed && !response.writableEnded;
  }

  function write(event: WireEvent): void {
    response.write(encodeEvent(event));
  }

  /** Resolves to whether the client has read what it was sent. */
  async function drained(termMs: number): Promise<boolean> {
    if (!response.writableNeedDrain) return true;
    const waiting = new AbortController();
    const drain = happened(response, ['drain', 'close'], waiting.signal);
    const term = clock.sleep(termMs, waiting.signal).catch(() => undefined);
    await Promise.race([drain, term]);
    waiting.abort();
    return !response.writableNeedDrain;
  }

  function tellDropped(): void {
    if (droppedBytes > 0) write({ type: 'dropped', bytes: droppedBytes });
    droppedBytes = 0;
  }

  return {
    request,
    sender,
    isWithdrawn: () => response.destroyed,
    isAnswered: () => answered,
    accept() {
      if (!isOpen()) return;
      response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
      write({ type: 'accepted', id: request.id });
    },
    async output(output) {
      for (const piece of piecesOf(output)) {
        const isRead = isOpen() && (await drained(droppedBytes > 0 ? 0 : STALLED_MS));
        if (!isOpen()) return;
        if (isRead) {
          tellDropped();
          write({ type: 'output', output: piece });
        } else droppedBytes += piece.bytes.byteLength;
      }
    },
    async answer(answer) {
      if (!isOpen()) return;
      answered = true;
      const waiting = new AbortController();
      const sent = happened(response, ['finish', 'close'], waiting.signal);
      tellDropped();
      write({ type: 'answer', answer });
      response.end();
      await Promise.race([sent, clock.sleep(ANSWER_MS, waiting.signal).catch(() => undefined)]);
      waiting.abort();
    },
  };
}

/**
 * The way back to a request whose connection broke with the sidecar that took it: there is none. Its answer is in the
 * journal, and the client that still lives asks again with the same id.
 */
export function makeDeliveryToNobody(request: Request, sender: Lease): Delivery {
  return { request, sender, output: () => Promise.resolve(), answer: () => Promise.resolve() };
}

function* piecesOf({ stream, bytes }: Output): Generator<Output> {
  for (let at = 0; at < bytes.byteLength; at += LARGEST_PIECE) {
    yield { stream, bytes: bytes.subarray(at, at + LARGEST_PIECE) };
  }
}

/** Resolves at the first of these events, or never once the signal aborts. */
function happened(response: ServerResponse, names: readonly string[], signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      forget();
      resolve();
    };
    const forget = (): void => {
      for (const name of names) response.off(name, settle);
    };
    for (const name of names) response.once(name, settle);
    signal.addEventListener('abort', forget, { once: true });
  });
}
