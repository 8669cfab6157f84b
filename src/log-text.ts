/** Turns what is logged into text that can neither tell a secret, nor forge a line, nor drive a terminal. */

/** What a string may be long; more is hardly read and soon fills a disk. */
const LONGEST_TEXT = 8 * 1024;
/** What a line may be long in all. */
const LONGEST_LINE = 32 * 1024;
const MOST_ITEMS = 100;
const DEEPEST = 6;

const MASK = '***';

/** C1 codes drive terminals, line separators break lines in some viewers, and bidirectional marks swap what is read. */
const UNPRINTABLE = /[\p{Cc}\p{Bidi_Control}\u2028\u2029\ufeff]/gu;

/** Replaces what nobody may see. */
export type Masker = (text: string) => string;

/** Masks these values, also percent-encoded, and each line of those with several. Those under 4 characters are none. */
export function makeMasker(secrets: readonly string[]): Masker {
  const forms = secrets.flatMap((secret) => {
    const parts = [secret, ...secret.split(/\r?\n/).map((line) => line.trim())];
    return parts.filter((part) => part.length >= 4).flatMap((part) => [part, encoded(part)]);
  });
  if (forms.length === 0) return (text) => text;
  const longestFirst = [...new Set(forms)].toSorted((a, b) => b.length - a.length);
  const pattern = new RegExp(
    longestFirst.map((form) => form.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('|'),
    'g',
  );
  return (text) => text.replaceAll(pattern, MASK);
}

/** One JSON object on one line. */
export function jsonLine(head: Readonly<Record<string, string>>, fields: object, mask: Masker): string {
  const line = stringify({ ...plain(head, mask), ...plain(renamed(fields, head), mask) });
  if (line.length <= LONGEST_LINE) return line;
  return stringify({ ...plain(head, mask), cut: `${line.length} characters of fields` });
}

/** `key=value` pairs for people. */
export function pairs(fields: object, mask: Masker): string {
  const texts = Object.entries(plain(fields, mask)).map(([key, value]) => {
    const text = typeof value === 'string' && /^[^\s"=]+$/.test(value) ? visible(value) : stringify(value);
    return ` ${visible(key)}=${text}`;
  });
  return cut(texts.join(''), LONGEST_LINE);
}

/** A text for people: masked, cut, and every character that is none made visible. */
export function textOf(text: string, mask: Masker): string {
  return visible(cut(mask(text), LONGEST_TEXT));
}

function visible(text: string): string {
  return text.toWellFormed().replaceAll(UNPRINTABLE, (char) => (char === '\t' ? char : escapeOf(char)));
}

function escapeOf(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

function stringify(value: unknown): string {
  return String(JSON.stringify(value)).replaceAll(UNPRINTABLE, escapeOf); // undefined where there is nothing to show
}

function cut(text: string, longest: number): string {
  return text.length <= longest ? text : `${text.slice(0, longest)}… (${text.length - longest} characters cut)`;
}

/** A field may be called anything, and still not pass for the time, the level or the message. */
function renamed(fields: object, head: object): object {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key in head ? `${key}_` : key, value]));
}

function plain(fields: object, mask: Masker): Record<string, unknown> {
  return toPlain(fields, mask, []) as Record<string, unknown>;
}

/** Anything at all, as data that JSON can hold, bounded in every direction. */
function toPlain(value: unknown, mask: Masker, above: readonly object[]): unknown {
  if (typeof value === 'string') return cut(mask(value), LONGEST_TEXT);
  if (typeof value === 'bigint' || typeof value === 'symbol') return String(value);
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value);
  if (typeof value === 'function') return '[function]';
  if (typeof value !== 'object' || value === null) return value;

  if (above.includes(value)) return '[circular]';
  if (above.length >= DEEPEST) return '[deep]';
  const inner = (item: unknown) => toPlain(item, mask, [...above, value]);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  if (value instanceof URL) return inner(value.href);
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Map || value instanceof Set) return inner([...value].slice(0, MOST_ITEMS + 1));
  if (Error.isError(value)) return inner(partsOfError(value));
  if (Array.isArray(value)) {
    const rest = value.length > MOST_ITEMS ? [`[${value.length - MOST_ITEMS} more]`] : [];
    return [...value.slice(0, MOST_ITEMS).map(inner), ...rest];
  }
  const entries = Object.keys(value).map((key): [string, unknown] => [mask(key), inner(read(value, key))]);
  return Object.fromEntries(entries.slice(0, MOST_ITEMS));
}

/** What is expected to go wrong needs no stack; what is not, is a bug. */
function partsOfError(error: Error): Record<string, unknown> {
  const { name, message, stack, cause } = error;
  const code = read(error, 'code');
  return {
    ...(name !== 'Error' && name !== 'OperationalError' && { name }),
    ...(code !== undefined && { code }),
    message,
    ...(cause !== undefined && { cause }),
    ...(error instanceof AggregateError && { errors: error.errors }),
    ...(name !== 'OperationalError' && code === undefined && { stack }),
  };
}

function read(value: object, key: string): unknown {
  try {
    return (value as Record<string, unknown>)[key];
  } catch {
    return '[unreadable]';
  }
}

function encoded(text: string): string {
  try {
    return encodeURIComponent(text);
  } catch {
    return text; // half a character
  }
}
