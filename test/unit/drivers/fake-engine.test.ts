import { systemClock } from '../../../src/clock.ts';
import { type Bench, type Conduct, driverContract } from '../../drivers/contract.ts';
import { makeFakeEngine } from '../../support/fake-engine.ts';

driverContract('fake engine', async (): Promise<Bench> => {
  const engine = makeFakeEngine(systemClock);
  const { instance, name } = engine.add('db', { stopMs: 5, startMs: 5 });
  engine.hooks.set('*', async ({ call: { program } }, sink, signal) => {
    const {
      out = '',
      err = '',
      waits = false,
      exitCode = 0,
    } = JSON.parse(program.kind === 'shell' ? program.line : '{}') as Conduct;
    if (out !== '') await sink({ stream: 'out', bytes: Buffer.from(out) });
    if (err !== '') await sink({ stream: 'err', bytes: Buffer.from(err) });
    if (waits) await systemClock.sleep(3_600_000, signal);
    return exitCode;
  });
  return {
    driver: engine.driver,
    workload: { key: 'app/db/1', instance, name },
    program: (conduct) => ({ kind: 'shell', line: JSON.stringify(conduct) }),
    impossible: { kind: 'script', name: '20-dump', interpreter: ['/opt/absent-interpreter'], text: 'true' },
    state: async () => engine.boxes.get(name)?.state ?? 'gone',
    countMarked: async (prefix) => [...engine.processes].filter(({ mark }) => mark.startsWith(prefix)).length,
    stop: async () => engine.kill(name),
    remove: async () => engine.remove(name),
    cutOff: async () => engine.setAway('no answer'),
    [Symbol.asyncDispose]: async () => undefined,
  };
});
