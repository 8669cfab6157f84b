/** Stands in for src/journal.ts: the same journal, with a point before and after every write. */
import type { Journal } from '../../src/core/ports.ts';
import { openJournal as open } from '../../src/journal.ts';
import { passBy, tellApart } from './tap-points.ts';

// biome-ignore lint/performance/noBarrelFile: it stands in for the module, with all that it has
export * from '../../src/journal.ts';

/** Whatever else it has is a write; a new read that is missing here costs a few points and no more. */
const READS = ['answerOf', 'unanswered', 'run', 'runs', 'steps', 'holds', 'holdsOf'];

export function openJournal(...args: Parameters<typeof open>): Journal & Disposable {
  passBy('before journal open');
  const journal = open(...args);
  passBy('after journal open');
  return new Proxy(journal, {
    get(target, name, receiver) {
      const value: unknown = Reflect.get(target, name, receiver);
      if (typeof name !== 'string' || typeof value !== 'function' || READS.includes(name)) return value;
      return (...given: readonly unknown[]): unknown => {
        const what = `journal ${name}${describe(given)}`;
        passBy(`before ${what}`);
        const result: unknown = Reflect.apply(value, target, given);
        passBy(`after ${what}`);
        return result;
      };
    },
  });
}

/** What tells one write from another, in every run alike: the workload, and what becomes of it or of the run. */
function describe(given: readonly unknown[]): string {
  const words = given.flatMap((one) => {
    if (typeof one === 'string') return /^[\w.-]+\/[\w.-]+\/\d+$/.test(one) ? [tellApart(one)] : [];
    const { status, phase, state, key } = (one ?? {}) as Readonly<Record<string, unknown>>;
    return [key, status, phase, state].filter((word) => typeof word === 'string').map(tellApart);
  });
  return words.map((word) => ` ${word}`).join('');
}
