/** A signal from busybox sh, over the files of the spool, to a trivial host hook and back. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { unpackedPackage } from '../test/support/install.ts';
import { which } from '../test/support/spool.ts';
import { type Extent, inTurn, pairsOf, type Row, timed } from './measure.ts';
import { checkRecord, hookOf, openSidecar, type Stage } from './stage.ts';

/** What the client does for one signal, in the same shell, where the client itself is the one who answers. */
const SAME_COMMANDS = `
for state in pre post; do
  mkfifo bell
  exec 7<>bell 6<bell
  (exec </dev/null >&7 2>/dev/null 6<&- 7<&-; exec sleep 60) &
  printf '%s\\n' version=1 operation=backup state=$state end=1 >request.tmp && mv -f request.tmp request
  "$1" backup $state
  printf '%s\\n' exit=$? end=1 >answer.tmp && mv -f answer.tmp answer
  echo rung >&7
  exec 7<&-
  until [ -e answer ]; do read -r word <&6; done
  while IFS= read -r line; do case $line in exit=*) code=\${line#*=} ;; esac; done <answer
  exec 6<&-
  kill "$!"
  rm -f bell request answer
  [ "$code" = 0 ] || exit
done
`;

/** A run of two signals, each by a client of its own, against the same done by one shell alone. */
export async function measureSpool(stage: Stage, { repetitions }: Extent): Promise<readonly Row[]> {
  const dir = await stage.folder();
  const record = join(dir, 'record');
  await using sidecar = await openSidecar(stage, { hooks: { '10-hook': hookOf(record) } }, dir);
  const alone = join(dir, 'alone');
  await writeFile(alone, SAME_COMMANDS);
  const busybox = (await which('busybox')) ?? join(await unpackedPackage('busybox-static'), 'bin/busybox');
  const sh = (...args: readonly string[]) => timed(() => execa(busybox, ['sh', ...args], { cwd: dir }));
  const client = join(sidecar.runDir, 'sidehook');
  const samples = await inTurn(
    repetitions,
    async () => {
      const pre = await sh(client, 'signal', 'backup', 'pre', '--run-file', join(dir, 'run-id'));
      return pre + (await sh(client, 'signal', 'backup', 'post', '--run-file', join(dir, 'run-id')));
    },
    () => sh(alone, join(dir, 'hooks.d/10-hook')),
  );
  await checkRecord(record, pairsOf(repetitions) * 4);
  const row = { work: 'spool: pre and post, from busybox sh', against: 'the same sh commands, no sidecar' };
  return [{ goal: { id: 'G4', most: 3 }, ...row, unit: 'ms', ...samples }];
}
