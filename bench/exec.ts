/** Hooks in a container. */

import { execa } from 'execa';
import { docker, openStack } from '../test/support/engine.ts';
import { type Extent, inTurn, pairsOf, type Row, timed } from './measure.ts';
import { checkTimes, hookOf, openSidecar, type Stage } from './stage.ts';

const MANY = 10;
const RECORD = '/record';

/** One `pre` with one hook in a container, and one with ten, against as many `docker exec`. */
export async function measureExec(stage: Stage, { repetitions, longRepetitions }: Extent): Promise<readonly Row[]> {
  await using stack = await openStack('measure-exec');
  const labels = { 'com.docker.compose.project': stack.name };
  const id = await stack.run({ name: 'target', labels });
  const target = `target=container:${stack.named('target')}`;
  const hook = (job: string) => hookOf(RECORD, `on=backup.pre ${target} job=${job}`);
  const many = Array.from({ length: MANY }, (_, index) => [`20-hook-${index}`, hook('many')]);
  const hooks = { '10-hook': hook('one'), ...Object.fromEntries(many) };
  await using sidecar = await openSidecar(stage, { hooks, project: stack.name });
  const pre = async (job: string): Promise<number> => {
    const took = await timed(() => sidecar.signal('pre', job));
    await sidecar.signal('post', job);
    return took;
  };
  const exec = () => execa('docker', ['exec', id, 'sh', '-c', `echo ran >>${RECORD}`], { stdin: 'ignore' });
  const execMany = async () => {
    for (let count = 0; count < MANY; count += 1) await exec();
  };
  const one = await inTurn(
    repetitions,
    () => pre('one'),
    () => timed(exec),
  );
  const ten = await inTurn(
    longRepetitions,
    () => pre('many'),
    () => timed(execMany),
  );
  const times = 2 * pairsOf(repetitions) + 2 * MANY * pairsOf(longRepetitions);
  checkTimes(await docker('exec', id, 'cat', RECORD), times);
  const [work, against] = ['socket: pre, one hook in a container', 'docker exec of the same'];
  return [
    { goal: { id: 'G6', most: 0.85 }, work, against, unit: 'ms', ...one },
    {
      goal: { id: 'G7', most: 0.3 },
      work: `socket: pre, ${MANY} hooks in one container`,
      against: `${MANY} docker exec`,
      unit: 'ms',
      ...ten,
    },
  ];
}
