/** Host hooks: no engine is needed, only a sidecar, a directory that it shares with the backup, and scripts. */
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { execa } from 'execa';
import { isThere, openSidecar, type Stage } from './stage.ts';

const DUMP = `#!/usr/bin/env node
// sidehook: on=backup.pre,backup.post timeout=1m
const [operation, state] = process.argv.slice(2);
process.chdir(process.env.SHOP);
const fs = require('node:fs');
const { DatabaseSync } = require('node:sqlite');

fs.rmSync('dump.db', { force: true });
if (state === 'pre') {
  new DatabaseSync('shop.db').exec("vacuum into 'dump.db'");
  console.log('dumped', fs.statSync('dump.db').size, 'bytes');
}
`;

const TELL = `#!/bin/sh
# sidehook: on=backup.post
echo "$SIDEHOOK_OUTCOME $SIDEHOOK_STATUS" >>"$SHOP/../outcomes"
`;

const REFUSE = `#!/bin/sh
# sidehook: on=backup.pre
echo "the tape is full" >&2
exit 3
`;

/** A backup that succeeds, one that a hook prevents, and one whose command is killed. */
export async function showHost(stage: Stage): Promise<void> {
  const { dir, say, check } = stage;
  const shop = join(dir, 'shop');
  const outcomes = async (): Promise<readonly string[]> => {
    const text = await readFile(join(dir, 'outcomes'), 'utf8').catch(() => '');
    return text.trim().split('\n');
  };
  for (const name of ['shop', 'hooks.d', 'restored']) await mkdir(join(dir, name));

  stage.title('Host hooks, with no engine (engine: none)');
  say('A shop writes to its SQLite database all the time. A hook makes a consistent copy of it before the backup,');
  say('and takes that away after it. Hooks are called as TKLBAM calls them: with an operation and a state.\n');
  await using application = await openShop(join(shop, 'shop.db'));
  await stage.script(join(dir, 'hooks.d/10-dump'), DUMP);
  await stage.script(join(dir, 'hooks.d/90-tell'), TELL);
  await using _sidecar = await openSidecar(dir, { engine: 'none' }, { SHOP: shop });

  stage.title('A backup that succeeds');
  const good = await stage.run('run/sidehook run backup -- tar -cf good.tar -C shop dump.db');
  check('the exit code is 0', good === 0);
  await execa('tar', ['-xf', 'good.tar', '-C', 'restored'], { cwd: dir, reject: false });
  check('the database in the archive is whole, and no money is missing', isWhole(join(dir, 'restored/dump.db')));
  check('the hook after it cleaned up', !(await isThere(join(shop, 'dump.db'))));
  check('and was told: success', (await outcomes()).join() === 'success 0');
  check('the shop was open all the while', application.isOpen());

  stage.title('A backup whose second hook exits 3');
  await stage.script(join(dir, 'hooks.d/20-tape'), REFUSE);
  const refused = await stage.run('run/sidehook run backup -- tar -cf refused.tar -C shop dump.db');
  check('3 comes back', refused === 3);
  check('nothing was backed up', !(await isThere(join(dir, 'refused.tar'))));
  check('what the first hook had done was undone', !(await isThere(join(shop, 'dump.db'))));
  await execa('rm', [join(dir, 'hooks.d/20-tape')]);

  stage.title('A backup whose command is killed');
  const killed = await stage.run(`run/sidehook run backup -- sh -c 'tar -cf half.tar -C shop dump.db; kill -KILL $$'`);
  check('137 comes back, as from a shell', killed === 137);
  check('the hooks after it ran all the same', !(await isThere(join(shop, 'dump.db'))));
  check('and were told: failure', (await outcomes()).at(-1) === 'failure 137');
}

async function openShop(path: string): Promise<AsyncDisposable & { isOpen(): boolean }> {
  const child = execa(process.execPath, [join(import.meta.dirname, 'shop.ts'), path], { reject: false });
  let isOpen = true;
  const closed = child.then(() => {
    isOpen = false;
  });
  await Promise.race([once(child.stdout, 'data'), closed]);
  if (!isOpen) throw new Error(`the shop did not open:\n${(await child).stderr}`);
  return {
    isOpen: () => isOpen,
    async [Symbol.asyncDispose]() {
      child.kill();
      await closed;
    },
  };
}

/** Each account had 1000, and what one pays another gets. */
function isWhole(path: string): boolean {
  try {
    using database = new DatabaseSync(path, { readOnly: true });
    const { sum } = database.prepare('select sum(money) as sum from account').get() ?? {};
    const { integrity_check: health } = database.prepare('pragma integrity_check').get() ?? {};
    return sum === 100_000 && health === 'ok';
  } catch (error) {
    console.log(`  ${error instanceof Error ? error.message : error}`);
    return false;
  }
}
