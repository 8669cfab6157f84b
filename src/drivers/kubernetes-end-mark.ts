/** Tells a hook's end though what it left in the background keeps its output open: the API says nothing until that ends. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sink } from '../core/ports.ts';
import type { ExecEnd } from './kubernetes-socket.ts';

/**
 * Runs a program, and says its exit code on its standard error once it has ended, around which stands what nobody can
 * know before. What a shell itself says of a program that was killed is not the program's word.
 */
const TELLER =
  'sidehook_n=$1; shift; exec 9>&2 2>/dev/null; (exec "$@" 2>&9 9>&-); sidehook_c=$?; ' +
  'printf \'\\036%s %s\\036\' "$sidehook_n" "$sidehook_c" >&9; exit "$sidehook_c"';
const EDGE = '\u001e';
/** How long the API has to say the same, and what was printed before to come. */
const LAST_WORDS_MS = 2_000;

/** A mark of one program's end, which is taken out of its output. */
export type EndMark = {
  /** The command line with what tells its end around it. */
  wrapped(argv: readonly string[]): readonly string[];
  readonly take: Sink;
  /** Resolves a little after the program said that it has ended, if nobody has said so by then. */
  told(life: AbortSignal): Promise<ExecEnd>;
};

export function openEndMark(sink: Sink): EndMark {
  const nonce = randomBytes(12).toString('hex');
  const open = Buffer.from(`${EDGE}${nonce} `);
  const { promise: ended, resolve } = Promise.withResolvers<number>();
  let kept: Buffer = Buffer.alloc(0);

  const take: Sink = async (output) => {
    if (output.stream === 'out') return sink(output);
    const bytes = Buffer.concat([kept, output.bytes]);
    const at = bytes.indexOf(open);
    const rest = at < 0 ? undefined : bytes.subarray(at + open.length);
    const end = rest?.indexOf(EDGE) ?? -1;
    // What may be the mark's beginning is kept until more comes; at the end of all there is no such rest.
    const from = at >= 0 ? at : beginOf(bytes, open);
    kept = end < 0 ? bytes.subarray(from) : Buffer.alloc(0);
    const pieces = [bytes.subarray(0, from), ...(rest === undefined || end < 0 ? [] : [rest.subarray(end + 1)])];
    for (const piece of pieces) if (piece.length > 0) await sink({ stream: 'err', bytes: piece });
    if (rest !== undefined && end >= 0) resolve(Number(rest.subarray(0, end).toString()));
  };
  return {
    take,
    wrapped: (argv) => ['sh', '-c', TELLER, 'sh', nonce, ...argv],
    async told(life) {
      const exitCode = await ended;
      await sleep(LAST_WORDS_MS, undefined, { signal: life }).catch(() => undefined);
      return { status: 'ended', exitCode };
    },
  };
}

/** Where the longest end of `bytes` begins that is a beginning of `mark`. */
function beginOf(bytes: Buffer, mark: Buffer): number {
  for (let size = Math.min(mark.length, bytes.length); size > 0; size -= 1) {
    if (bytes.subarray(bytes.length - size).equals(mark.subarray(0, size))) return bytes.length - size;
  }
  return bytes.length;
}
