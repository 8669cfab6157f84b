import { type IncomingMessage, request as openRequest } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { ERRORS, type ErrorCode, OperationalError } from '../core/errors.ts';

/** What is sent to a sidecar. */
export type Question = {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: object;
  readonly signal: AbortSignal;
};

/** Nobody answered, or the connection broke: a sidecar that is not up (yet, or any more). */
export type Away = { readonly away: string };

/** How long to wait before the next try: an upgrade takes seconds, and a try costs next to nothing. */
export const RETRY_MS = 250;

/** After so many refusals in a row it is not a sidecar that has just come up. */
const MOST_REFUSALS = 8;

/** The largest document that is believed to be an answer of ours. */
const LARGEST_DOCUMENT = 16 * 1024 * 1024;

/**
 * Asks, and resolves once the head of the answer is there; its body is the caller's to read.
 * @throws OperationalError what a problem document says; `refused` where the socket is closed to us
 */
export async function open(socketPath: string, question: Question): Promise<IncomingMessage | Away> {
  const reply = await connect(socketPath, question);
  if ('away' in reply || reply.statusCode === 200) return reply;
  const text = await readText(reply, question.signal);
  if (typeof text !== 'string') return text;
  throw errorOf(socketPath, reply, text);
}

/** Asks for one JSON document. A status in `alsoFine` has one, too. @throws OperationalError as `open` */
export async function ask(
  socketPath: string,
  question: Question,
  alsoFine?: number,
): Promise<{ readonly document: unknown } | Away> {
  const reply = await connect(socketPath, question);
  if ('away' in reply) return reply;
  const text = await readText(reply, question.signal);
  if (typeof text !== 'string') return text;
  if (reply.statusCode !== 200 && reply.statusCode !== alsoFine) throw errorOf(socketPath, reply, text);
  try {
    return { document: JSON.parse(text) };
  } catch (cause) {
    throw strangeAnswer(socketPath, cause);
  }
}

/** What speaks at this socket is no sidehook, or one that we do not understand. */
export function strangeAnswer(socketPath: string, cause: unknown): OperationalError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new OperationalError('internal', `answer from ${socketPath}: not understood: ${why}`, { cause });
}

/** No sidecar, 69: nobody took it up in the time that there was. */
export function nobodyThere(socketPath: string, why: string): OperationalError {
  return new OperationalError('engine-unavailable', `no sidecar at ${socketPath}: ${why}`);
}

/** A sidecar that has just come up gives its socket to its owner a moment after it made it. */
async function connect(socketPath: string, question: Question): Promise<IncomingMessage | Away> {
  for (let tries = 1; ; tries += 1) {
    const reply = await connectOnce(socketPath, question);
    if (!('away' in reply) || reply.away !== 'EACCES') return reply;
    if (tries === MOST_REFUSALS) throw closedToUs(socketPath);
    await pause(RETRY_MS, undefined, { signal: question.signal });
  }
}

function connectOnce(socketPath: string, { method, path, body, signal }: Question): Promise<IncomingMessage | Away> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers =
    text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  return new Promise((resolve, reject) => {
    const request = openRequest({ socketPath, method, path, headers, agent: false, signal });
    request.once('response', (response) => resolve(response));
    // Stays after the answer's head: a connection that breaks later is told by the body's end.
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (signal.aborted) reject(signal.reason);
      else if (error.code === 'ENAMETOOLONG' || error.code === 'EINVAL') reject(badPath(socketPath, error));
      else if (error.code?.startsWith('HPE_')) reject(strangeAnswer(socketPath, error));
      else resolve({ away: error.code ?? error.message });
    });
    request.end(text);
  });
}

async function readText(response: IncomingMessage, signal: AbortSignal): Promise<string | Away> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response) {
      chunks.push(chunk as Buffer);
      size += (chunk as Buffer).length;
      if (size > LARGEST_DOCUMENT) return { away: 'an answer without end' };
    }
  } catch (error) {
    signal.throwIfAborted();
    return { away: (error as NodeJS.ErrnoException).code ?? String(error) };
  }
  return Buffer.concat(chunks).toString('utf8');
}

function errorOf(socketPath: string, { statusCode }: IncomingMessage, text: string): OperationalError {
  const { code, detail } = problemOf(text);
  if (typeof code !== 'string' || typeof detail !== 'string') return strangeAnswer(socketPath, `HTTP ${statusCode}`);
  return new OperationalError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'internal', detail);
}

function problemOf(text: string): { readonly code?: unknown; readonly detail?: unknown } {
  try {
    const document: unknown = JSON.parse(text);
    return typeof document === 'object' && document !== null ? document : {};
  } catch {
    return {};
  }
}

function closedToUs(socketPath: string): OperationalError {
  const why = 'its owner and mode do not let us in; see run.owner and run.mode';
  return new OperationalError('refused', `connect to ${socketPath}: ${why}`);
}

function badPath(socketPath: string, cause: Error): OperationalError {
  return new OperationalError('configuration', `connect to ${socketPath}: ${cause.message}`, { cause });
}
