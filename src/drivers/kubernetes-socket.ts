/** Exec in a pod, over a WebSocket: one message per piece of output, the first byte of each says which stream. */
import type { IncomingMessage } from 'node:http';
import { type RawData, WebSocket } from 'ws';
import { OperationalError } from '../core/errors.ts';
import type { Output, Sink } from '../core/ports.ts';
import { type Api, parseJson } from './kubernetes-api.ts';
import { pathOf } from './kubernetes-objects.ts';

/** What is to be run in which container of which pod. */
export type Task = {
  readonly doing: string;
  readonly pod: string;
  readonly container: string;
  readonly argv: readonly string[];
  /** For its standard input, which is empty without it. */
  readonly input?: string | undefined;
};

/** How it ended, by the server's word: `refused` never ran; `cut`: nobody can tell. */
export type ExecEnd =
  | { readonly status: 'ended'; readonly exitCode: number }
  | { readonly status: 'refused'; readonly why: string }
  | { readonly status: 'cut'; readonly why: string };

/** The fifth version can say that standard input has ended; otherwise they are the same. */
const PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'];
const [INPUT, OUT, ERR, STATUS, CLOSE] = [0, 1, 2, 3, 255];
const HANDSHAKE_MS = 30_000;
const PING_MS = 15_000;
const DEAF_MS = 90_000;
const MOST_WAITING_BYTES = 256 * 1024;
const PIECE_BYTES = 32 * 1024;

/**
 * Runs it. An abort of `life` ends the connection, and nothing in the container; then it resolves as `cut`. Output is
 * taken no faster than the sink takes it, and all of it before this resolves.
 * @throws OperationalError `engine-unavailable`, `refused`: it was not started
 */
export async function runInPod(api: Api, task: Task, sink: Sink, life: AbortSignal): Promise<ExecEnd> {
  const { doing, pod, container, argv, input } = task;
  const query = new URLSearchParams({
    container,
    stdout: 'true',
    stderr: 'true',
    ...(input === undefined ? {} : { stdin: 'true' }),
  });
  for (const word of argv) query.append('command', word);
  const { url, options } = await api.dial(`${pathOf(api, 'pods', pod)}/exec`, query);
  life.throwIfAborted();
  const socket = new WebSocket(url, PROTOCOLS, {
    ...options,
    ...{ handshakeTimeout: HANDSHAKE_MS, perMessageDeflate: false, skipUTF8Validation: true },
  });
  const { promise, resolve, reject } = Promise.withResolvers<ExecEnd>();
  const sent = makeQueue(socket, sink);
  let end: ExecEnd | undefined;
  let breakage = 'the connection was closed without a word';
  let heardAt = performance.now();
  let isRefused = false;
  const onAbort = (): void => {
    breakage = 'nobody listens any more';
    socket.terminate();
  };
  const ping = setInterval(() => {
    if (socket.isPaused) heardAt = performance.now(); // it is we who do not listen: the client reads slowly
    if (performance.now() - heardAt < DEAF_MS) return void (socket.readyState === WebSocket.OPEN && socket.ping());
    breakage = `no sign of life for ${DEAF_MS / 1000} s`;
    socket.terminate();
  }, PING_MS);
  life.addEventListener('abort', onAbort, { once: true });

  socket.on('unexpected-response', (_request, response) => {
    isRefused = true;
    explain(doing, response)
      .then(resolve, reject)
      .finally(() => socket.terminate());
  });
  socket.on('open', () => {
    if (input !== undefined) sendInput(socket, input);
  });
  socket.on('pong', () => {
    heardAt = performance.now();
  });
  socket.on('message', (data: RawData) => {
    heardAt = performance.now();
    const bytes = bytesOf(data);
    const channel = bytes[0];
    if (channel === OUT || channel === ERR)
      sent.add({ stream: channel === OUT ? 'out' : 'err', bytes: bytes.subarray(1) });
    else if (channel === STATUS) {
      end = endOf(bytes.subarray(1).toString());
      socket.close();
    }
  });
  socket.on('error', (error) => {
    breakage = error.message;
  });
  socket.on('close', () => {
    if (isRefused) return;
    const wasOpen = socket.protocol !== '';
    if (end === undefined && !wasOpen && !life.aborted) {
      return reject(new OperationalError('engine-unavailable', `${doing}: the API cannot be reached: ${breakage}`));
    }
    sent.whenDone().then(() => resolve(end ?? { status: 'cut', why: breakage }), reject);
  });
  try {
    return await promise;
  } finally {
    clearInterval(ping);
    life.removeEventListener('abort', onAbort);
  }
}

/** Hands on what comes, in order; holds the connection up while too much waits. */
function makeQueue(socket: WebSocket, sink: Sink) {
  let tail = Promise.resolve();
  let waiting = 0;
  return {
    add(output: Output): void {
      const size = output.bytes.byteLength;
      if (size === 0) return;
      waiting += size;
      if (waiting > MOST_WAITING_BYTES) socket.pause();
      tail = tail.then(async () => {
        await sink(output);
        waiting -= size;
        if (waiting <= MOST_WAITING_BYTES && socket.isPaused) socket.resume();
      });
    },
    whenDone: () => tail,
  };
}

function sendInput(socket: WebSocket, input: string): void {
  const bytes = Buffer.from(input);
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    socket.send(Buffer.concat([Buffer.of(INPUT as number), bytes.subarray(at, at + PIECE_BYTES)]));
  }
  if (socket.protocol === PROTOCOLS[0]) socket.send(Buffer.of(CLOSE as number, INPUT as number));
}

function bytesOf(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}

type Status = {
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
};

/** The status object is the exit code; what cannot be read is none, and never 0. */
function endOf(text: string): ExecEnd {
  const { status, reason, message = '', details } = (parseJson(text) ?? {}) as Status;
  if (status === 'Success') return { status: 'ended', exitCode: 0 };
  const code = details?.causes?.find((cause) => cause.reason === 'ExitCode')?.message;
  if (reason === 'NonZeroExitCode' && code !== undefined && /^\d{1,3}$/.test(code)) {
    return { status: 'ended', exitCode: Number(code) };
  }
  if (status === 'Failure') return { status: 'refused', why: message };
  return { status: 'cut', why: `the API said ${JSON.stringify(text.slice(0, 200))} of its end` };
}

const GONE = /not found|completed pod|not running|container .*(?:terminated|exited)|is waiting to start/i;

/** The server did not open a connection: it says why in a body. */
async function explain(doing: string, response: IncomingMessage): Promise<ExecEnd> {
  let text = '';
  for await (const chunk of response as AsyncIterable<Buffer>) if (text.length < 65_536) text += chunk.toString();
  const { message = text.trim() } = (parseJson(text) ?? {}) as Status;
  const { statusCode: status = 0 } = response;
  if (status === 401 || status === 403) {
    throw new OperationalError('refused', `${doing}: the API does not permit it (${status}: ${message})`);
  }
  if (status < 500 && status !== 429) return { status: 'refused', why: message || `the API answered ${status}` };
  if (GONE.test(message)) return { status: 'refused', why: message };
  throw new OperationalError('engine-unavailable', `${doing}: the API answered ${status}: ${message}`);
}
