/** How long applications are down: what users feel most. */
import { docker, openStack } from '../test/support/engine.ts';
import { type Extent, inTurn, type Row, timed } from './measure.ts';
import { checkRunning, openSidecar, type Stage } from './stage.ts';

type Crowd = {
  readonly count: number;
  readonly stopSeconds: number;
  readonly goal?: NonNullable<Row['goal']>;
  /** Against one after the other, too. */
  readonly singly?: NonNullable<Row['goal']>;
};

/** `pre` and `post` with nothing between, for containers that are held, against `docker stop` and `docker start`. */
export async function measureHold(stage: Stage, { longRepetitions, isQuick }: Extent): Promise<readonly Row[]> {
  const crowds: readonly Crowd[] = [
    { count: isQuick ? 2 : 10, stopSeconds: 0 },
    { count: isQuick ? 3 : 50, stopSeconds: 0, goal: { id: 'G1', most: 0.65 } },
    { count: isQuick ? 2 : 10, stopSeconds: 1, goal: { id: 'G2', most: 0.8 }, singly: { id: 'G2', most: 0.3 } },
  ];
  const rows: Row[] = [];
  for (const crowd of crowds) rows.push(...(await measureOne(stage, longRepetitions, crowd)));
  return rows;
}

async function measureOne(stage: Stage, repetitions: number, crowd: Crowd): Promise<readonly Row[]> {
  const { count, stopSeconds, goal, singly } = crowd;
  await using stack = await openStack('measure-hold');
  const labels = { 'com.docker.compose.project': stack.name, 'sidehook.hold': 'stop' };
  const end = stopSeconds === 0 ? 'exit 0' : `sleep ${stopSeconds}; exit 0`;
  const args = ['sh', '-c', `trap "${end}" TERM; while :; do sleep 3600 & wait $!; done`];
  const ids: string[] = [];
  for (let made = 0; made < count; made += 1) ids.push(await stack.run({ args, labels }));
  await using sidecar = await openSidecar(stage, { project: stack.name });
  await sidecar.signal('pre');
  await checkRunning(stack.label, 0);
  await sidecar.signal('post');
  await checkRunning(stack.label, count);
  const ours = () => timed(() => sidecar.signal('pre').then(() => sidecar.signal('post')));
  const one = async (verb: 'stop' | 'start') => {
    for (const id of ids) await docker(verb, id);
  };
  const samples = await inTurn(repetitions, ours, () =>
    timed(() => docker('stop', ...ids).then(() => docker('start', ...ids))),
  );
  const alone = singly && (await inTurn(1, ours, () => timed(() => one('stop').then(() => one('start')))));
  const slow = stopSeconds === 0 ? '' : `, ${stopSeconds} s each to stop`;
  const work = `socket: pre and post, ${count} containers held${slow}`;
  const row: Row = { work, against: 'docker stop, docker start', unit: 'ms', ...samples };
  return [
    goal === undefined ? row : { ...row, goal },
    ...(alone === undefined || singly === undefined
      ? []
      : [{ ...row, goal: singly, against: 'the same, one by one', ...alone }]),
  ];
}
