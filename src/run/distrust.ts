import type { RunRecord } from '../core/record.ts';
import { writeOrLog } from './engine.ts';
import type { Tools } from './tools.ts';

/** By run, what the journal could not be told yet: its client is told all the same (65). */
const unwritten = new WeakMap<Tools['journal'], Map<string, readonly string[]>>();

/** Why a run's backup cannot be trusted, also where a full disk kept that from being written. */
export function distrustOf(
  { id, distrust }: Pick<RunRecord, 'id' | 'distrust'>,
  { journal }: Tools,
): readonly string[] {
  const written = journal.run(id)?.distrust ?? [];
  return [...new Set([...distrust, ...written, ...(unwritten.get(journal)?.get(id) ?? [])])];
}

/** Adds a reason, for the journal and for whoever asks before it is written. */
export function distrustRun(run: RunRecord, why: string, tools: Tools): void {
  const { journal } = tools;
  const all = unwritten.get(journal) ?? new Map<string, readonly string[]>();
  unwritten.set(journal, all.set(run.id, [...(all.get(run.id) ?? []), why]));
  writeOrLog(tools, () => {
    journal.changeRun(run.id, { distrust: distrustOf(run, tools) });
    all.delete(run.id);
  });
}
