import { isUtf8 } from 'node:buffer';
import type { Output } from '../core/ports.ts';
import type { Answer } from '../core/result.ts';

/** The protocol that both ends speak; a request that names another one is refused. */
export const PROTOCOL_VERSION = 1;

/** What one line may measure, in bytes: longer ones are no answer of ours. */
export const LARGEST_LINE = 1024 * 1024;

/** One line of a stream, in either direction of time: `accepted` comes first, `answer` last. */
export type WireEvent =
  /** The sidecar picked the signal up. */
  | { readonly type: 'accepted'; readonly id: string }
  | { readonly type: 'output'; readonly output: Output }
  /** The client read nothing for so long that this much of the hooks' output was dropped. */
  | { readonly type: 'dropped'; readonly bytes: number }
  | { readonly type: 'answer'; readonly answer: Answer }
  /** The lease is held by this connection. */
  | { readonly type: 'leased' }
  /** The run was given up while its client lives; `why` is a line for people. */
  | { readonly type: 'abandoned'; readonly why: string };

/**
 * Writes an event as one line of JSON, newline included. Output that is text travels as `text`, and bytes that are none
 * as `base64`: whoever puts the pieces of one stream together has every byte again, and `jq -j .text` reads the rest.
 */
export function encodeEvent(event: WireEvent): string {
  return `${JSON.stringify(plainOf(event))}\n`;
}

function plainOf(event: WireEvent): object {
  if (event.type === 'answer') return { type: 'answer', ...event.answer };
  if (event.type !== 'output') return event;
  const { stream, bytes } = event.output;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = isUtf8(buffer) ? { text: buffer.toString('utf8') } : { base64: buffer.toString('base64') };
  return { type: 'output', stream, ...data };
}

/**
 * Reads events from the bytes of a stream, wherever they were cut. Blank lines, events of a type that it does not know
 * and a torn last line are passed over: a later sidecar may say more, and one that died said no more.
 * @throws Error for what is no event: not JSON, a line without end, a field of the wrong type
 */
export async function* decodeEvents(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<WireEvent> {
  for await (const line of linesOf(bytes)) {
    const event = line.trim() === '' ? undefined : parseEvent(line);
    if (event !== undefined) yield event;
  }
}

async function* linesOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let pending: Buffer[] = [];
  let size = 0;
  for await (const chunk of bytes) {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      yield Buffer.concat([...pending, rest.subarray(0, end)]).toString('utf8');
      pending = [];
      size = 0;
      rest = rest.subarray(end + 1);
    }
    pending.push(rest);
    size += rest.length;
    if (size > LARGEST_LINE) throw new Error(`a line of over ${LARGEST_LINE} bytes`);
  }
}

function parseEvent(line: string): WireEvent | undefined {
  const raw: unknown = JSON.parse(line);
  if (typeof raw !== 'object' || raw === null) throw new Error('not an object');
  const fields = raw as Record<string, unknown>;
  switch (fields.type) {
    case 'accepted':
      return { type: 'accepted', id: textOf(fields, 'id') };
    case 'output':
      return { type: 'output', output: outputOf(fields) };
    case 'dropped':
      return { type: 'dropped', bytes: numberOf(fields, 'bytes', Number.MAX_SAFE_INTEGER) };
    case 'answer':
      return { type: 'answer', answer: answerOf(fields) };
    case 'leased':
      return { type: 'leased' };
    case 'abandoned':
      return { type: 'abandoned', why: textOf(fields, 'why') };
    default:
      textOf(fields, 'type');
      return undefined;
  }
}

function outputOf(fields: Record<string, unknown>): Output {
  const stream = fields.stream;
  if (stream !== 'out' && stream !== 'err') throw new Error(`stream: expected out or err, got ${String(stream)}`);
  const isText = fields.text !== undefined;
  const bytes = Buffer.from(textOf(fields, isText ? 'text' : 'base64'), isText ? 'utf8' : 'base64');
  return { stream, bytes };
}

/** Reads what a client is told, as `POST /v1/signals` and `POST /v1/release` tell it. @throws Error */
export function answerOf(fields: Record<string, unknown>): Answer {
  const { notes = [] } = fields;
  if (!Array.isArray(notes) || notes.some((note) => typeof note !== 'string')) throw new Error('notes: expected lines');
  return {
    exitCode: numberOf(fields, 'exitCode', 255),
    ...(fields.runId === undefined ? {} : { runId: textOf(fields, 'runId') }),
    ...(fields.message === undefined ? {} : { message: textOf(fields, 'message') }),
    notes,
  };
}

function textOf(fields: Record<string, unknown>, name: string): string {
  const value = fields[name];
  if (typeof value !== 'string') throw new Error(`${name}: expected text, got ${String(JSON.stringify(value))}`);
  return value;
}

function numberOf(fields: Record<string, unknown>, name: string, most: number): number {
  const value = fields[name];
  if (Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most) return value as number;
  throw new Error(`${name}: expected 0 to ${most}, got ${String(JSON.stringify(value))}`);
}
