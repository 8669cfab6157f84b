import { Writable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import winston from 'winston';
import type { Log } from './core/ports.ts';
import { secretsOf } from './core/secret.ts';
import { jsonLine, type Masker, makeMasker, pairs, textOf } from './log-text.ts';

const LEVELS = { error: 0, warn: 1, info: 2, debug: 3 } as const;

type Level = keyof typeof LEVELS;

export type LogOptions = {
  readonly level: Level;
  /** `auto`: pretty on a terminal, else JSON. */
  readonly format: 'auto' | 'json' | 'pretty';
  /** Values that may stand in no line. */
  readonly secrets?: readonly string[];
  /** Values of variables that look secret are masked, too. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Standard error, unless a test wants to read it. */
  readonly stream?: Writable & { readonly isTTY?: boolean };
};

/** A log that can be waited for. */
export type OpenLog = Log & {
  /** Resolves when all lines were written, or a second has passed: nobody may be reading. For the end of the process. */
  flush(): Promise<void>;
};

/** One event on its way through winston. */
type Event = {
  readonly level: Level;
  readonly message: string;
  readonly fields: object;
  readonly hook?: { readonly name: string; readonly stream: string };
};

/** Where nobody reads standard error, lines are dropped and counted rather than kept: memory is bounded. */
const MOST_UNWRITTEN = 1024 * 1024;
const FLUSH_MS = 1_000;

const COLOURS: Record<Level, string> = {
  error: '\u001b[31m',
  warn: '\u001b[33m',
  info: '\u001b[32m',
  debug: '\u001b[2m',
};
const NO_COLOUR = '\u001b[0m';

/** Opens the log, on standard error. It never throws, blocks or ends the process, whatever becomes of its reader. */
export function openLog({ level, format, secrets = [], env = {}, stream = process.stderr }: LogOptions): OpenLog {
  const mask = makeMasker([...secrets, ...secretsOf(env)]);
  const isTerminal = stream.isTTY === true;
  const isPretty = format === 'pretty' || (format === 'auto' && isTerminal);
  const colours = isTerminal && !env.NO_COLOR ? COLOURS : undefined;
  const makeLine = isPretty
    ? (event: Event) => prettyLine(event, mask, colours)
    : (event: Event) => eventLine(event, mask);

  const { sink, flush } = openSink(stream, (lines) =>
    makeLine({ level: 'warn', message: 'lines lost, since nobody read standard error', fields: { lines } }),
  );
  const logger = winston.createLogger({
    levels: LEVELS,
    level,
    format: winston.format((info) => ({ ...info, [Symbol.for('message')]: makeLine(info as unknown as Event) }))(),
    transports: [new winston.transports.Stream({ stream: sink, eol: '\n' })],
  });
  return { ...makeLog(logger, {}), flush };
}

function makeLog(logger: winston.Logger, own: object): Log {
  const log = (event: Event): void => {
    // Merged into winston's own arguments, a field called `message`, `stack` or `cause` would be taken for another thing.
    if (logger.isLevelEnabled(event.level)) logger.log({ ...event, fields: { ...own, ...event.fields } });
  };
  return {
    debug: (message, fields = {}) => log({ level: 'debug', message, fields }),
    info: (message, fields = {}) => log({ level: 'info', message, fields }),
    warn: (message, fields = {}) => log({ level: 'warn', message, fields }),
    error: (message, fields = {}) => log({ level: 'error', message, fields }),
    hookOutput: (name, stream, line, fields) => log({ level: 'info', message: line, fields, hook: { name, stream } }),
    child: (fields) => makeLog(logger, { ...own, ...fields }),
  };
}

function eventLine({ level, message, fields, hook }: Event, mask: Masker): string {
  const time = new Date().toISOString();
  if (hook === undefined) return jsonLine({ time, level, message }, fields, mask);
  return jsonLine(
    { time, level, message: 'hook output', hook: hook.name, stream: hook.stream, line: message },
    fields,
    mask,
  );
}

function prettyLine(
  { level, message, fields, hook }: Event,
  mask: Masker,
  colours: Record<Level, string> | undefined,
): string {
  const time = new Date().toISOString().slice(11, 19);
  if (hook !== undefined)
    return `${time} ${textOf(hook.name, mask)}${hook.stream === 'err' ? '!' : '|'} ${textOf(message, mask)}`;
  const label = level.padEnd(5);
  const shown = colours === undefined ? label : `${colours[level]}${label}${NO_COLOUR}`;
  return `${time} ${shown} ${textOf(message, mask)}${pairs(fields, mask)}`;
}

/** A stream for winston that stands before standard error: bounded, and deaf to its errors. */
function openSink(
  target: Writable,
  lossLine: (lines: number) => string,
): { readonly sink: Writable; flush(): Promise<void> } {
  let lost = 0;
  target.on('error', () => {}); // a closed standard error ends no backup
  const sink = new Writable({
    decodeStrings: false,
    write(line: string, _encoding, done) {
      if (target.destroyed || target.writableLength > MOST_UNWRITTEN) lost += 1;
      else {
        if (lost > 0) target.write(`${lossLine(lost)}\n`);
        lost = 0;
        target.write(line);
      }
      done();
    },
  });
  const written = (): Promise<void> => new Promise((resolve) => target.write('', () => resolve()));
  return { sink, flush: () => Promise.race([written(), pause(FLUSH_MS, undefined, { ref: false })]) };
}
