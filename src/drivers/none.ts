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
    // Asked only after what the journal holds or owes. `undefined` would mean that it is gone, and forget it.
    inspect({ name }) {
      const why = 'the journal has it from an engine, and there is none now (engine: none): name that engine again';
      return Promise.reject(new OperationalError('engine-unavailable', `look for ${name}: ${why}`));
    },
    exec: async ({ call }) => ({
      status: 'broken',
      exitCode: 78,
      why: `hook ${call.name}: there is no engine (engine: none)`,
    }),
    endLeftovers: async () => undefined,
    hold: ({ name }) => none(`hold ${name}`),
    release: ({ name }) => none(`release ${name}`),
    async *changes(signal) {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      throw signal.reason;
    },
    examine: async () => [{ what: 'engine', level: 'ok', says: 'none: host hooks alone' }],
  };
}
