import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { shells } from '../support/shells.ts';
import { clientScript, openSpoolBench, startClient, which } from '../support/spool.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);
/** What many signals may take on a busy machine. */
const MANY_MS = 10 * 60_000;
const isRoot = process.getuid?.() === 0;
const [, anyShell = ['sh']] = shells[0] ?? [];

describe('many clients', () => {
  it('are each answered once: a thousand, one after the other', { timeout: MANY_MS }, async () => {
    await using bench = await openSpoolBench();
    const loop = 'n=0; while [ $n -lt 1000 ]; do n=$((n + 1)); "$@" --param N=$n || exit; done';
    const argv = ['sh', '-c', loop, 'sh', ...anyShell, bench.path('sidehook'), 'signal', 'backup', 'pre'];
    const client = startClient(argv, { patienceMs: MANY_MS });
    assert.equal(await client.ended, 0, client.err());
    assert.equal(client.err(), '');
    const numbers = bench.seen.map(({ request }) => Number(request.params.N));
    assert.deepEqual(
      numbers,
      Array.from({ length: 1000 }, (_, index) => index + 1),
    );
    assert.deepEqual(await readdir(bench.path('spool/in')), []);
  });

  it('are each answered once: fifty at once, in every shell', async () => {
    await using bench = await openSpoolBench({
      script: ({ request, output, answer }) =>
        output({ stream: 'out', bytes: Buffer.from(`${request.params.N}\n`) }).then(() =>
          answer({ exitCode: 0, notes: [] }),
        ),
    });
    const clients = Array.from({ length: 50 }, (_, index) => {
      const [, argv] = shells[index % shells.length] ?? assert.fail();
      return bench.client(argv, ['signal', 'backup', 'pre', '--param', `N=${index}`]);
    });
    for (const [index, client] of clients.entries()) {
      assert.equal(await client.ended, 0, client.err());
      assert.equal(client.out(), `${index}\n`);
    }
    assert.equal(bench.seen.length, 50);
  });
});

describe('a client in a container', () => {
  it('needs nothing writable but the volume', async (test) => {
    const program = await which('unshare');
    const readOnly = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && ! touch /x 2>/dev/null && exec "$@"';
    await using bench = await openSpoolBench({
      script: ({ output, answer }) =>
        output({ stream: 'err', bytes: Buffer.from('hook\n') }).then(() => answer({ exitCode: 0, notes: ['a note'] })),
    });
    const inside = ['-m', '--propagation', 'private', 'sh', '-c', readOnly, bench.dir];
    const isAble =
      program !== undefined &&
      (await run(program, [...inside, 'true']).then(
        () => true,
        () => false,
      ));
    if (!isAble) return test.skip('cannot make a read-only root here');
    for (const [shell, argv] of shells) {
      const client = bench.client(
        [program, ...inside, ...argv],
        ['run', 'backup', '--timeout', '1h', '--', 'echo', 'ran'],
      );
      assert.equal(await client.ended, 0, `${shell}: ${client.err()}`);
      assert.equal(client.out(), 'ran\n');
      assert.equal(client.err(), 'hook\nsidehook: a note\n'.repeat(2), shell);
    }
  });

  it('may be another user of the same group, and no other', { skip: !isRoot && 'needs root' }, async () => {
    await using bench = await openSpoolBench({ owner: { uid: 0, gid: 4242 } });
    for (const [shell, argv] of shells) {
      const run = ['run', 'backup', '--connect-timeout', '10s', '--', 'id', '-u'];
      const friend = bench.client(argv, run, { uid: 1234, gid: 4242 });
      assert.equal(await friend.ended, 0, `${shell}: ${friend.err()}`);
      assert.equal(friend.out(), '1234\n');
      const script = [...argv, '-c', clientScript, bench.path('sidehook'), ...run];
      const stranger = startClient(script, { uid: 1234, gid: 4343 });
      assert.equal(await stranger.ended, 69, `${shell}: ${stranger.err()}`);
      assert.match(stranger.err(), /^sidehook: backup: no sidecar in .* that we may write to\n$/);
    }
  });

  it('is served by a sidecar that is not root', { skip: !isRoot && 'needs root' }, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'unprivileged-'));
    chownSync(dir, 4000, 4242);
    mkdirSync(join(dir, 'home'));
    const module = new URL('../support/spool.ts', import.meta.url).href;
    const serve = `
      process.setgid(4242); process.setuid(4000);
      process.env.TMPDIR = ${JSON.stringify(dir)};
      const { openSpoolBench } = await import(${JSON.stringify(module)});
      const bench = await openSpoolBench();
      bench.seen.push = (delivery) => void delivery.sender.lost(AbortSignal.timeout(20_000)).then(() => console.log('lost'));
      console.log(bench.dir);`;
    const sidecar = startClient([process.execPath, '--input-type=module', '-e', serve], { input: 'open' });
    try {
      const place = await until(() => sidecar.out().split('\n')[0], { what: 'the sidecar' });
      chmodSync(dir, 0o755);
      const client = startClient(
        [...anyShell, join(place, 'sidehook'), 'run', 'backup', '--', 'sh', '-c', 'echo ready; read -r line'],
        {
          ...{ uid: 1234, gid: 4242, input: 'open' },
        },
      );
      await until(() => client.out() === 'ready\n' || client.child.exitCode !== null, { what: 'the command' });
      assert.equal(sidecar.out(), `${place}\n`, 'the lease can be read, and is not lost');
      client.child.stdin?.end('\n');
      assert.equal(await client.ended, 0, client.err());
      await until(() => sidecar.out().includes('lost'), { what: 'the lease to be lost' });
    } finally {
      sidecar.endAll();
      rmSync(dir, { recursive: true });
    }
  });

  it('is interrupted from a terminal once, not twice', async (test) => {
    const script = await which('script');
    if (script === undefined) return test.skip('there is no script(1) here');
    await using bench = await openSpoolBench();
    const counting =
      'n=0; trap "n=\\$((n + 1))" INT TERM; echo ready; until [ $n -gt 0 ]; do sleep 0.1; done; sleep 1; echo "caught $n"';
    for (const [shell, argv] of shells) {
      const quoted = [...argv, bench.path('sidehook'), 'run', 'backup', '--', 'bash', '-c', counting]
        .map((word) => `'${word.replaceAll("'", "'\\''")}'`)
        .join(' ');
      const client = startClient([script, '-qefc', quoted, '/dev/null'], { input: 'open' });
      await until(() => client.out().includes('ready'), { what: 'the command' });
      client.child.stdin?.write('\u0003');
      await until(() => client.out().includes('caught'), { what: 'the command to end' });
      assert.match(client.out(), /caught 1\r?\n/, `${shell}: ${client.out()}`);
      client.child.stdin?.end();
      await client.ended;
    }
  });
});
