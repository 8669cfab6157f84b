/** How a program gets into a container: as one command line, which leaves nothing behind. */
import { OperationalError } from '../core/errors.ts';
import type { HookCall } from '../core/hook.ts';
import type { Outcome } from '../core/result.ts';
import type { WorkloadRef } from '../core/workload.ts';

/** A command line for the engine. */
export type Command = {
  readonly argv: readonly string[];
  /** Whose text it is, for messages: `sh`, `python3`. */
  readonly needs: string;
  /** What a shell looks for in its turn. */
  readonly interpreter?: string;
  /** What goes in by standard input, which the hook itself finds empty. */
  readonly input?: string;
  /** The same without a shell, for a container that has none. */
  readonly otherwise?: Command;
};

/** How a text goes in that is too long for one argument: Kubernetes has the whole command line in an address. */
export type LongWay = 'arguments' | 'input';

/** The kernel takes at most 128 KiB in one argument, and some 2 MiB in all. */
const ARGUMENT_BYTES = 100 * 1024;
const SCRIPT_BYTES = 1024 * 1024;

const SHELLS = ['sh', 'ash', 'dash', 'bash', 'ksh', 'ksh93', 'mksh', 'lksh', 'zsh', 'yash', 'posh'];
/** Those that take a text as an argument, and leave the arguments after it to that text. */
const TEXT_OPTIONS: Readonly<Record<string, string>> = { python: '-c', perl: '-e', ruby: '-e' };

/** Puts the pieces of a long text together, and leaves just the two arguments. $0 is the hook's name. */
const JOINED =
  'sidehook_a=$1 sidehook_b=$2 sidehook_t=; shift 2; for sidehook_p do sidehook_t=$sidehook_t$sidehook_p; done; ' +
  'set -- "$sidehook_a" "$sidehook_b"; unset sidehook_a sidehook_b sidehook_p; eval "unset sidehook_t; $sidehook_t"';

/** The same from standard input, of which $3 says how many bytes are the text: not every API can close it. */
const READ =
  'sidehook_t=$(head -c "$3") || exit 126; exec </dev/null; set -- "$1" "$2"; eval "unset sidehook_t; $sidehook_t"';

/** As ON_DESCRIPTOR, with a text of $1 bytes from standard input. */
const READ_ON_DESCRIPTOR =
  'sidehook_t=$(head -c "$1") || exit 126; shift; exec </dev/null; ' +
  'command -v "$1" >/dev/null || exit 127; printf %s "$sidehook_t" | "$@" 3<&0 </dev/null';

/**
 * Gives any other interpreter its text on a descriptor: no file, no option of its own needed. The text goes by a pipe,
 * whose writer ends with its reader; standard input is empty again by then. $1 is the number of pieces of the text.
 */
const ON_DESCRIPTOR =
  'sidehook_n=$1 sidehook_t=; shift; while [ "$sidehook_n" -gt 0 ]; do ' +
  'sidehook_t=$sidehook_t$1 sidehook_n=$((sidehook_n - 1)); shift; done; ' +
  'command -v "$1" >/dev/null || exit 127; printf %s "$sidehook_t" | "$@" 3<&0 </dev/null';

/**
 * The command line that runs a hook's program: a script with exactly two arguments, operation and state; a label's
 * command with none.
 * @throws OperationalError `configuration` for what cannot travel
 */
export function commandOf({ name, operation, state, program }: HookCall, longWay: LongWay = 'arguments'): Command {
  switch (program.kind) {
    case 'shell':
      return { argv: ['sh', '-c', checked(name, program.line)], needs: 'sh' };
    case 'argv': {
      const [first = ''] = program.argv;
      return { argv: program.argv.map((word) => checked(name, word)), needs: first };
    }
    case 'script':
      return scriptCommand(program.interpreter, checked(name, program.text), [name, operation, state], longWay);
    case 'executable':
      throw new OperationalError('configuration', `run hook ${name}: only a script can travel into a container`);
  }
}

function checked(name: string, text: string): string {
  const bytes = Buffer.byteLength(text);
  const why = text.includes('\0')
    ? 'it has a NUL byte'
    : bytes > SCRIPT_BYTES && `it has ${bytes} bytes, of at most ${SCRIPT_BYTES}`;
  if (why)
    throw new OperationalError('configuration', `run hook ${name}: its text cannot travel into a container: ${why}`);
  return text;
}

function scriptCommand(
  interpreter: readonly string[],
  text: string,
  [name, ...args]: readonly [name: string, operation: string, state: string],
  longWay: LongWay,
): Command {
  const words = withoutEnv(interpreter);
  const [needs = 'sh'] = words;
  const family = familyOf(words);
  const pieces = piecesOf(text);
  const bytes = String(Buffer.byteLength(text));
  if (SHELLS.includes(family)) {
    if (pieces.length <= 1) return { argv: [...words, '-c', text, name, ...args], needs };
    if (longWay === 'input') return { argv: [...words, '-c', READ, name, ...args, bytes], needs, input: text };
    return { argv: [...words, '-c', JOINED, name, ...args, ...pieces], needs };
  }
  const count = String(pieces.length);
  const line = [...words, ...(family === 'node' ? ['--preserve-symlinks-main'] : []), '/dev/fd/3', ...args];
  if (longWay === 'input' && pieces.length > 1) {
    const argv = ['sh', '-c', READ_ON_DESCRIPTOR, name, bytes, ...line];
    return { argv, needs, interpreter: needs, input: text };
  }
  const option = TEXT_OPTIONS[family];
  return {
    argv: ['sh', '-c', ON_DESCRIPTOR, name, count, ...pieces, ...line],
    ...{ needs, interpreter: needs },
    ...(option !== undefined && pieces.length <= 1
      ? { otherwise: { argv: [...words, option, text, ...args], needs } }
      : {}),
  };
}

/** `env` looks a program up in the PATH, and so does the engine: the container need not have it. */
function withoutEnv(interpreter: readonly string[]): readonly string[] {
  const words = interpreter.flatMap((word) => word.split(/\s+/)).filter((word) => word !== '');
  if (baseOf(words[0]) !== 'env') return words.length === 0 ? ['sh'] : words;
  const rest = words.slice(words[1] === '-S' ? 2 : 1);
  const isPlain = rest.length > 0 && !rest[0]?.startsWith('-') && !rest[0]?.includes('=');
  return isPlain ? rest : words;
}

/** `python3.11` is of the family `python`; of `/bin/busybox sh`, it is the applet that counts. */
function familyOf(words: readonly string[]): string {
  const names = words.filter((word) => !word.startsWith('-')).map(baseOf);
  const name = (names[0] === 'busybox' || names[0] === 'toybox' ? names[1] : names[0]) ?? '';
  return SHELLS.includes(name) ? name : name.replace(/[\d.]+$/, '');
}

function baseOf(path = ''): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Cuts a text where an argument must end, never within a character. */
function piecesOf(text: string): readonly string[] {
  if (Buffer.byteLength(text) <= ARGUMENT_BYTES) return [text];
  const pieces: string[] = [];
  let piece = '';
  let bytes = 0;
  for (const character of text) {
    const size = Buffer.byteLength(character);
    if (bytes + size > ARGUMENT_BYTES) {
      pieces.push(piece);
      [piece, bytes] = ['', 0];
    }
    piece += character;
    bytes += size;
  }
  return [...pieces, piece];
}

/** What shells, and we, exit with for a program that is not there. */
export const NOT_FOUND = 127;

/** The runtime's words around what matters. */
const WRAPPING =
  /^.*(?:OCI runtime exec failed: |exec failed: |unable to start container process: )+|: (?:unknown|OCI .*)$/g;
const ABSENT = /executable file .*not found|no such file or directory|not found in \$PATH/i;

/** The engine could not start it: why, in the runtime's words, is all that we know. */
export function outcomeOfRefusal(
  words: string,
  { argv, needs }: Command,
  { name }: Pick<WorkloadRef, 'name'>,
): Outcome {
  const why = words.trim().split('\n', 1).join().trim().replace(WRAPPING, '').trim() || 'the engine does not say why';
  const isAbsent = ABSENT.test(why) && !/chdir|cwd|working dir/i.test(why);
  if (!isAbsent) return { status: 'broken', exitCode: 126, why: `in container ${name}: ${why}` };
  const sought = argv[0] === needs ? needs : `${argv[0]}, which ${needs} takes`;
  return { status: 'broken', exitCode: NOT_FOUND, why: `container ${name} has no ${sought}` };
}
