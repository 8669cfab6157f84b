/** What others' containers on the same engine cost us. */
import { docker, openStack } from '../test/support/engine.ts';
import { type Extent, type Row, timed } from './measure.ts';
import { openSidecar, type Stage } from './stage.ts';

const OURS = 10;
const AT_ONCE = 8;

/** A `plan` among a thousand containers, ten of them ours, against the same with ten in all. */
export async function measureCrowd(stage: Stage, { repetitions, isQuick }: Extent): Promise<readonly Row[]> {
  const total = isQuick ? 20 : 1000;
  await using stack = await openStack('measure-crowd');
  const labels = { 'com.docker.compose.project': stack.name, 'sidehook.hold': 'stop' };
  for (let made = 0; made < OURS; made += 1) await stack.run({ labels });
  await using sidecar = await openSidecar(stage, { project: stack.name });
  const plans = async (): Promise<number[]> => {
    const taken: number[] = [];
    for (let count = 0; count <= repetitions; count += 1) {
      const took = await timed(async () => {
        const { steps } = await sidecar.plan();
        if (steps.length < OURS) throw new Error(`check what is measured: ${steps.length} steps, of ${OURS} holds`);
      });
      if (count > 0) taken.push(took); // in the first, caches fill
    }
    return taken;
  };
  const theirs = await plans();
  const others = Array.from({ length: total - OURS }).values();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const _ of others) await stack.make();
    }),
  );
  const ours = await plans();
  const seen = (await docker('ps', '--all', '--quiet', '--filter', `label=${stack.label}`)).split('\n').length;
  if (seen !== total) throw new Error(`check what is measured: ${seen} containers, not ${total}`);
  const work = `socket: plan, ${total} containers, ${OURS} of them ours`;
  return [{ goal: { id: 'G10', most: 2 }, work, against: `the same, ${OURS} in all`, unit: 'ms', ours, theirs }];
}
