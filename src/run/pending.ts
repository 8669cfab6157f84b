import type { HoldRecord } from '../core/record.ts';
import { isUnwritten, writeRest } from './engine.ts';
import { nextWithin } from './pulse.ts';
import { releaseAll } from './release.ts';
import { edgesOf, type Shared, toNobody } from './shared.ts';

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 60_000;

/** Holds that no run needs any more: a release that failed, or one that a crash cut off. */
export function orphansOf({ tools }: Shared): readonly HoldRecord[] {
  const live = new Set(tools.journal.runs('live').map(({ id }) => id));
  return tools.journal.holds().filter(({ runs }) => !runs.some((id) => live.has(id)));
}

/** One attempt at all that nobody needs any more, in order. */
export async function releaseOrphans(shared: Shared): Promise<void> {
  const orphans = orphansOf(shared);
  if (orphans.length === 0) return;
  await releaseAll(orphans, orphans[0]?.runs[0] ?? 'none', shared.tools, edgesOf(shared, toNobody));
  shared.turn.beat();
}

const retrying = new WeakSet<Shared>();

/**
 * Tries again, with growing pauses and whenever a run has ended, until nothing is left pending and all is written. One
 * such loop at a time.
 */
export function retryPending(shared: Shared): void {
  const { tools, ending, stopping, turn } = shared;
  const isPending = (): boolean => isUnwritten(tools) || orphansOf(shared).length > 0;
  if (retrying.has(shared) || !isPending()) return;
  retrying.add(shared);
  const loop = async (): Promise<void> => {
    for (let delayMs = FIRST_DELAY_MS; isPending(); delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS)) {
      await nextWithin(turn, delayMs, tools.clock, AbortSignal.any([ending.signal, stopping.signal]));
      if (isUnwritten(tools) && writeRest(tools)) turn.beat();
      await releaseOrphans(shared);
    }
  };
  const done = loop().finally(() => retrying.delete(shared));
  shared.inBackground(
    done.catch((error) => {
      if (!shared.stopping.signal.aborted) throw error;
    }),
  );
}
