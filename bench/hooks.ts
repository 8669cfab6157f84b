/** A hundred host hooks in one signal. */
import { join } from 'node:path';
import { execa } from 'execa';
import { type Extent, inTurn, pairsOf, type Row, timed } from './measure.ts';
import { checkRecord, hookOf, openSidecar, type Stage } from './stage.ts';

/** One `pre` with many hooks, through the socket, against `run-parts` of the same folder. */
export async function measureHooks(stage: Stage, { longRepetitions, isQuick }: Extent): Promise<readonly Row[]> {
  const count = isQuick ? 5 : 100;
  const dir = await stage.folder();
  const record = join(dir, 'record');
  const text = hookOf(record, 'on=backup.pre');
  const hooks = Object.fromEntries(Array.from({ length: count }, (_, index) => [`hook-${100 + index}`, text]));
  await using sidecar = await openSidecar(stage, { hooks }, dir);
  const samples = await inTurn(
    longRepetitions,
    async () => {
      const took = await timed(() => sidecar.signal('pre'));
      await sidecar.signal('post');
      return took;
    },
    () => timed(() => execa('/usr/bin/run-parts', ['--arg=backup', '--arg=pre', join(dir, 'hooks.d')])),
  );
  await checkRecord(record, pairsOf(longRepetitions) * 2 * count);
  const row = { work: `socket: pre, ${count} host hooks`, against: 'run-parts of the same' };
  return [{ goal: { id: 'G5', most: 1.5 }, ...row, unit: 'ms', ...samples }];
}
