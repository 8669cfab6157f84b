import { OperationalError } from '../core/errors.ts';
import type { Answer } from '../core/result.ts';

/** What a request may measure, in bytes. */
export const LARGEST_REQUEST = 64 * 1024;

/** What the object for the parser has beside the lines, and the last line's key. */
const RESERVED = ['id', 'params', 'end'];

const MOST_NOTES = 200;
const LONGEST_LINE = 2048;

/** `CLIENT.N.req`: CLIENT is random, one for each client process; N counts its requests. */
const NAME = /^(([A-Za-z0-9][A-Za-z0-9_-]{7,63})\.[0-9]{1,6})\.(req|got)$/;

/** What the name of a file in `spool/in` says. */
export type RequestName = {
  /** The request's: `CLIENT.N`. */
  readonly id: string;
  /** The client process's, whose lease it is. */
  readonly sender: string;
  /** `got`: taken, and not answered when the sidecar died. */
  readonly stage: 'req' | 'got';
};

/** Undefined for a name that is no request's. */
export function parseName(name: string): RequestName | undefined {
  const [, id, sender, stage] = NAME.exec(name) ?? [];
  if (id === undefined || sender === undefined) return undefined;
  return { id, sender, stage: stage === 'got' ? 'got' : 'req' };
}

/** The client process that a file in either directory belongs to; the name itself when it is nobody's. */
export function senderOf(name: string): string {
  const [, sender] = /^([A-Za-z0-9][A-Za-z0-9_-]{7,63})\./.exec(name) ?? [];
  return sender ?? name;
}

/**
 * Turns the text of a request into what core's parser takes: strings as they came, `params` apart.
 * @throws OperationalError `invalid-request` for what is no request, or half of one
 */
export function parseRequestText(bytes: Uint8Array, id: string): Record<string, unknown> {
  if (bytes.length > LARGEST_REQUEST) throw invalid(`expected at most ${LARGEST_REQUEST} bytes, got more`);
  const lines = decode(bytes).split('\n');
  if (lines.pop() !== '' || lines.pop() !== 'end=1') throw invalid('expected end=1 as its last line, got half a file');

  const fields = new Map<string, string>();
  const params = new Map<string, string>();
  for (const line of lines) {
    const split = line.indexOf('=');
    const name = line.slice(0, split);
    const isParam = name.startsWith('param.');
    if (split < 1 || name === 'param.' || RESERVED.includes(name)) {
      throw invalid(`expected key=value, got ${quote(line)}`);
    }
    const key = isParam ? name.slice('param.'.length) : name;
    const known = isParam ? params : fields;
    if (known.has(key)) throw invalid(`${quote(name)}: expected once, got it twice`);
    known.set(key, line.slice(split + 1));
  }
  return { ...Object.fromEntries(fields), id, params: Object.fromEntries(params) };
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw invalid('expected UTF-8 text, got other bytes', { cause });
  }
}

/** The text of an answer: a line for each thing, none of which can pass for another or drive a terminal. */
export function formatAnswer(answer: Answer): string {
  const notes = answer.notes.slice(0, MOST_NOTES);
  if (answer.notes.length > MOST_NOTES) notes.push(`${answer.notes.length - MOST_NOTES} more notes are left out`);
  return [
    `exit=${answer.exitCode}`,
    ...(answer.runId === undefined ? [] : [`run=${oneLine(answer.runId)}`]),
    ...(answer.message === undefined ? [] : [`message=${oneLine(answer.message)}`]),
    ...notes.map((note, index) => `note.${index + 1}=${oneLine(note)}`),
    'end=1\n',
  ].join('\n');
}

/** Text as one bounded line without control characters. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').toWellFormed();
  return line.length > LONGEST_LINE ? `${line.slice(0, LONGEST_LINE).toWellFormed()}…` : line;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);
}

function invalid(why: string, options?: ErrorOptions): OperationalError {
  return new OperationalError('invalid-request', `request: ${why}`, options);
}
