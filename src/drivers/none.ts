import { OperationalError } from '../core/errors.ts';
import type { Driver } from '../core/ports.ts';
import { describeTarget } from '../core/workload.ts';

/** `engine: none`: host hooks alone. Whatever would need an engine is a configuration error, told before anything runs. */
export function openNone(): Driver {
  const none = (doing: string): Promise<never> => {
    const why = 'there is no engine (engine: none); name one, or use target=host';
    return Promise.reject(new OperationalError('configuration', `${doing}: ${why}`));
  };
  return {
    engine: 'none',
    async look(targets) {
      const other = targets.find(({ kind }) => kind !== 'host');
      if (other !== undefined) return none(`target ${describeTarget(other)}`);
      return { workloads: [], notes: [] };
    },
    inspect: async () => undefined,
    exec: async ({ call }) => ({
      status: 'broken',
      exitCode: 78,
      why: `hook ${call.name}: there is no engine (engine: none)`,
    }),
    endLeftovers: async () => undefined,
    hold: ({ name }) => none(`hold ${name}`),
    release: ({ name }) => none(`release ${name}`),
    // biome-ignore lint/correctness/useYield: nothing ever changes
    async *changes(signal) {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      throw signal.reason;
    },
  };
}
