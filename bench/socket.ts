/** A signal through the socket to a trivial host hook and back. */
import { join } from 'node:path';
import { type Extent, inTurn, pairsOf, type Row, timed } from './measure.ts';
import { askBareServer, checkRecord, hookOf, openBareServer, openSidecar, type Stage } from './stage.ts';

/** A run of two signals, each with one hook, against two requests to a server that does no more than run the hook. */
export async function measureSocket(stage: Stage, { repetitions }: Extent): Promise<readonly Row[]> {
  const dir = await stage.folder();
  const record = join(dir, 'record');
  await using sidecar = await openSidecar(stage, { hooks: { '10-hook': hookOf(record) } }, dir);
  await using bare = await openBareServer(stage, join(dir, 'hooks.d/10-hook'));
  const samples = await inTurn(
    repetitions,
    () => timed(() => sidecar.signal('pre').then(() => sidecar.signal('post'))),
    () => timed(() => askBareServer(bare).then(() => askBareServer(bare))),
  );
  await checkRecord(record, pairsOf(repetitions) * 4);
  const against = 'node:http server that only runs it';
  return [{ work: 'socket: pre and post, one host hook each', against, unit: 'ms', ...samples }];
}
