import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { shells } from '../support/shells.ts';
import { anAnswer, type Client, isLost, obliging, openSpoolBench, untilAsked, which } from '../support/spool.ts';
import { until } from '../support/until.ts';

/** A command that says that it runs, ends with 7 when it is told to end, and with 0 when its input does. */
const PATIENT = 'trap "exit 7" HUP INT TERM; echo ready; while :; do sleep 0.05; done';
/** A command that ends when there is a file of that name. */
const GATED = 'echo ready; until [ -e "$GATE" ]; do sleep 0.05; done';
const aCommand = (script: string) => ['--', 'sh', '-c', script];

const untilReady = (client: Client) =>
  until(() => client.out().includes('ready'), { what: 'the command', everyMs: 10 });
const inbox = (bench: { path: (...parts: string[]) => string }) => readdirSync(bench.path('spool/in')).join(' ');

/** Every process of the client's session that still runs. */
function survivors(client: Client): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    try {
      const stat = /^\d+ \((.*)\) (.) \d+ \d+ (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'));
      return stat?.[3] === String(client.child.pid) && stat[2] !== 'Z' ? [`${pid} ${stat[1]}`] : [];
    } catch {
      return [];
    }
  });
}

/** Nothing of it is left; a last sleep of a helper may take some seconds. */
const untilGone = (client: Client) =>
  until(() => survivors(client).length === 0, { what: 'all that it started to end' });

/** Side by side, since most of it is waiting. */
describe('the client, when things go wrong', { concurrency: 3 }, () => {
  for (const [shell, argv] of shells) {
    describe(`in ${shell}`, () => {
      for (const [signal, code] of [
        ['SIGTERM', 7],
        ['SIGHUP', 7],
        ['SIGINT', 7],
      ] as const) {
        it(`passes ${signal} on to the command, and asks for post all the same`, async () => {
          await using bench = await openSpoolBench();
          const client = bench.client(argv, ['run', 'backup', ...aCommand(PATIENT)]);
          await untilReady(client);
          client.child.kill(signal);
          assert.equal(await client.ended, code, client.err());
          const { request } = bench.seen.at(-1) ?? assert.fail();
          assert.deepEqual([request.state, request.status, request.outcome], ['post', 7, 'failure']);
          assert.equal(client.err(), 'sidehook: backup: the command exited 7\n');
        });
      }

      it('says 128+N of a command that a passed-on signal ended', async () => {
        await using bench = await openSpoolBench();
        const client = bench.client(argv, ['run', 'backup', ...aCommand('echo ready; exec sleep 60')]);
        await untilReady(client);
        client.child.kill('SIGTERM');
        assert.equal(await client.ended, 143);
        assert.equal(bench.seen.at(-1)?.request.status, 143);
        assert.equal(client.err(), 'sidehook: backup: the command was ended by signal 15\n');
      });

      it('gives pre up when it is told to end, so that the sidecar sees it die', async () => {
        await using bench = await openSpoolBench({ script: () => undefined });
        for (const [signal, code] of [
          ['SIGTERM', 143],
          ['SIGINT', 130],
          ['SIGHUP', 129],
        ] as const) {
          const client = bench.client(argv, ['run', 'backup', '--', 'echo', 'ran']);
          await until(() => bench.seen.length > 0, { what: 'pre', everyMs: 10 });
          const { sender } = bench.seen.pop() ?? assert.fail();
          assert.equal(await isLost(sender), false);
          client.child.kill(signal);
          assert.equal(await client.ended, code, client.err());
          assert.equal(client.err(), `sidehook: backup pre: interrupted by ${signal.slice(3)}\n`);
          assert.equal(client.out(), '');
          await sender.lost(AbortSignal.timeout(60_000));
          await untilGone(client);
        }
      });

      it('waits for post though it is told to end, once', async () => {
        await using bench = await openSpoolBench({
          script: ({ request, ...delivery }) =>
            request.state === 'post' ? undefined : obliging({ request, ...delivery }),
        });
        const client = bench.client(argv, ['run', 'backup', '--', 'true']);
        const post = await untilAsked(bench, 'post');
        client.child.kill('SIGTERM');
        assert.equal(await isLost(post.sender), false);
        await post.output({ stream: 'out', bytes: Buffer.from('still here\n') });
        await until(() => client.err() === 'still here\n', { what: 'output', everyMs: 10 });
        await post.answer(anAnswer(0));
        assert.equal(await client.ended, 0, client.err());

        const other = bench.client(argv, ['run', 'backup', '--', 'true']);
        await until(() => bench.asked().filter((asked) => asked === 'backup post').length === 2, { what: 'post' });
        // Several that come before it had a turn are one to it.
        while (other.child.exitCode === null && other.child.signalCode === null) {
          other.child.kill('SIGTERM');
          await isLost(bench.seen.at(-1)?.sender);
        }
        assert.equal(await other.ended, 143);
      });

      it('takes back what nobody picked up, and says 69', async () => {
        await using bench = await openSpoolBench();
        await bench.stop();
        const client = bench.client(argv, ['run', 'backup', '--connect-timeout', '1s', '--', 'echo', 'ran']);
        assert.equal(await client.ended, 69);
        assert.equal(client.err(), 'sidehook: backup pre: no sidecar picked it up within 1s\n');
        assert.equal(client.out(), '');
        assert.equal(inbox(bench), '');
        const told = bench.client(argv, ['signal', 'backup', 'pre']);
        await until(() => /\.req/.test(inbox(bench)), { what: 'the request', everyMs: 10 });
        told.child.kill('SIGTERM');
        assert.equal(await told.ended, 143);
        assert.equal(inbox(bench), '');
        await untilGone(told);
      });

      it('ends a command that runs out of time, with 124, and at last by force', async () => {
        await using bench = await openSpoolBench();
        const client = bench.client(argv, ['run', 'backup', '--timeout', '1s', ...aCommand('exec sleep 60')]);
        assert.equal(await client.ended, 124, client.err());
        assert.equal(bench.seen.at(-1)?.request.status, 124);
        assert.equal(client.err(), 'sidehook: backup: the command ran out of time (1s)\n');
        await untilGone(client);
        const inTime = bench.client(argv, ['run', 'backup', '--timeout=1h', ...aCommand('exit 5')]);
        assert.equal(await inTime.ended, 5);
        await untilGone(inTime);
      });

      it('lets the command hold the lease when its own shell is killed, and nobody else', async () => {
        await using bench = await openSpoolBench();
        const env = { GATE: bench.path('gate') };
        const client = bench.client(argv, ['run', 'restore', '--timeout', '1h', ...aCommand(GATED)], { env });
        await untilReady(client);
        const { sender } = await untilAsked(bench, 'pre');
        client.child.kill('SIGKILL');
        await client.exited;
        assert.equal(await isLost(sender), false);
        writeFileSync(env.GATE, '');
        await sender.lost(AbortSignal.timeout(60_000));
        await untilGone(client);
        assert.deepEqual(bench.asked(), ['restore pre', 'restore started']);
      });

      it('keeps the lease while it is paused', async () => {
        await using bench = await openSpoolBench();
        const client = bench.client(argv, ['run', 'backup', ...aCommand('echo ready; read -r line')], {
          input: 'open',
        });
        await untilReady(client);
        process.kill(-(client.child.pid ?? 0), 'SIGSTOP');
        assert.equal(await isLost(bench.seen[0]?.sender), false);
        process.kill(-(client.child.pid ?? 0), 'SIGCONT');
        client.child.stdin?.end('\n');
        assert.equal(await client.ended, 0, client.err());
      });

      it('waits for a sidecar that dies while it works for it, in pre and in post, and does not notice in between', async () => {
        await using bench = await openSpoolBench({
          script: ({ output }) => output({ stream: 'out', bytes: Buffer.from('one\n') }),
        });
        const client = bench.client(argv, ['run', 'backup', ...aCommand('echo ready; read -r line')], {
          input: 'open',
        });
        await until(() => client.err() === 'one\n', { what: 'output', everyMs: 10 });
        const pre = await untilAsked(bench, 'pre');
        await bench.stop();
        await bench.start(async (spool) => {
          const again = spool.reopen(pre.request, pre.sender.ref) ?? assert.fail();
          await again.output({ stream: 'out', bytes: Buffer.from('two\n') });
          await again.answer(anAnswer(0, { runId: 'run-1' }));
        });
        await untilReady(client);
        const lease = bench.spool().lease(pre.sender.ref);
        assert.equal(await isLost(lease), false);
        await bench.stop();
        client.child.stdin?.end('\n');
        await until(() => /2\.req/.test(inbox(bench)), { what: 'post', everyMs: 10 });
        await bench.start();
        await untilAsked(bench, 'post');
        await bench.stop();
        bench.setScript(obliging);
        await bench.start();
        assert.equal(await client.ended, 0, client.err());
        assert.equal(client.err(), 'one\ntwo\none\n');
      });

      it('says 69 when the sidecar died with its request, and does not come back', async () => {
        await using bench = await openSpoolBench({ script: () => undefined });
        const client = bench.client(argv, ['signal', 'backup', 'pre', '--connect-timeout', '5s']);
        await untilAsked(bench, 'pre');
        await bench.stop();
        assert.equal(await client.ended, 69);
        assert.equal(client.err(), 'sidehook: backup pre: the sidecar went away, and did not come back within 5s\n');
      });

      it('is woken by the next start for an answer of which the dead sidecar did not tell it', async () => {
        await using bench = await openSpoolBench({ script: () => undefined });
        const client = bench.client(argv, ['signal', 'backup', 'pre', '--connect-timeout', '10m']);
        const { request } = await untilAsked(bench, 'pre');
        await bench.stop();
        const answer = bench.path('spool/out', `${request.id}.ans`);
        writeFileSync(`${answer}.tmp`, 'exit=42\nmessage=as it was\nend=1\n');
        renameSync(`${answer}.tmp`, answer);
        await bench.start();
        assert.equal(await client.ended, 42, client.err());
        assert.equal(client.err(), 'sidehook: as it was\n');
        assert.deepEqual(bench.asked(), ['backup pre']);
      });

      it('leaves a post that nobody picked up for the next sidecar', async () => {
        await using bench = await openSpoolBench();
        const client = bench.client(
          argv,
          ['run', 'backup', '--connect-timeout', '5s', ...aCommand('echo ready; read -r line')],
          {
            input: 'open',
          },
        );
        await untilReady(client);
        await bench.stop();
        client.child.stdin?.end('\n');
        assert.equal(await client.ended, 69);
        assert.equal(client.err(), 'sidehook: backup post: no sidecar picked it up within 5s; the next one will\n');
        await bench.start();
        const { request } = await untilAsked(bench, 'post');
        assert.deepEqual([request.runId, request.status], ['run-1', 0]);
      });

      it('ends the command of a restore whose run was given up, and no other', async () => {
        await using bench = await openSpoolBench();
        for (const [operation, code] of [
          ['restore', 65],
          ['backup', 0],
        ] as const) {
          const script = operation === 'restore' ? PATIENT : 'echo ready; read -r line';
          const client = bench.client(argv, ['run', operation, ...aCommand(script)], { input: 'open' });
          await untilReady(client);
          bench.seen.findLast(({ request }) => request.state === 'pre')?.sender.abandon?.('it was given up');
          if (operation === 'backup') {
            assert.equal(await isLost(bench.seen.at(-1)?.sender), false);
            client.child.stdin?.end('\n');
          }
          assert.equal(await client.ended, code, client.err());
          const why = 'sidehook: restore: the command exited 7, because its run was given up\n';
          assert.equal(client.err(), operation === 'restore' ? why : '');
          assert.equal(bench.seen.at(-1)?.request.state, 'post');
        }
      });

      it('does without FIFOs', async () => {
        const bin = mkdtempSync(join(tmpdir(), 'bin-'));
        for (const tool of ['mv', 'cat', 'rm', 'sleep', 'printf', 'kill', 'tr', 'od', 'sh']) {
          symlinkSync((await which(tool)) ?? assert.fail(tool), join(bin, tool));
        }
        const program = (await which(argv[0] ?? '')) ?? assert.fail();
        const env = { PATH: bin, GATE: join(bin, 'gate') };
        let client: Client | undefined;
        await using bench = await openSpoolBench({
          leaseTtlMs: 15_000, // it counts every three seconds, or later on a busy machine
          async script(delivery) {
            await delivery.output({ stream: 'err', bytes: Buffer.from('first\n') });
            await until(() => client?.err().includes('first\n'), { what: 'the first line', everyMs: 10 });
            await obliging(delivery);
          },
        });
        writeFileSync(bench.path('spool/out/no-fifo'), ''); // some shells have a mkfifo of their own
        const start = (args: string[], script: string) =>
          bench.client([program, ...argv.slice(1)], ['run', ...args, ...aCommand(script)], { env, input: 'open' });
        client = start(['backup'], 'read -r line; exit 3');
        client.child.stdin?.end('\n');
        assert.equal(await client.ended, 3, client.err());
        assert.equal(client.err(), 'first\nfirst\nsidehook: backup: the command exited 3\n');
        await untilGone(client);
        assert.equal(inbox(bench), '');

        client = start(['restore'], PATIENT);
        await untilReady(client);
        const { sender } = bench.seen.findLast(({ request }) => request.state === 'pre') ?? assert.fail();
        sender.abandon?.('it was given up');
        assert.equal(await client.ended, 65, client.err());

        client = start(['backup'], GATED);
        await untilReady(client);
        const lease = bench.seen.at(-1)?.sender ?? assert.fail();
        client.child.kill('SIGKILL');
        await client.exited;
        const lost = lease.lost(AbortSignal.timeout(60_000));
        const isAlive = await Promise.race([
          lost.then(() => false),
          until(() => countChanges(bench.path('spool/in'), 2), { what: 'the count to go on', deadlineMs: 60_000 }).then(
            () => true,
          ),
        ]);
        assert.equal(isAlive, true, 'its command lives');
        writeFileSync(env.GATE, '');
        await lost;
        await untilGone(client);
        rmSync(bin, { recursive: true });
      });

      it('counts no longer without FIFOs when it is killed before it has a command', async () => {
        await using bench = await openSpoolBench({ leaseTtlMs: 15_000, script: () => new Promise(() => undefined) });
        writeFileSync(bench.path('spool/out/no-fifo'), '');
        const client = bench.client(argv, ['run', 'backup', ...aCommand('exit 0')]);
        await until(() => bench.seen.length > 0, { what: 'the pre to be taken' });
        client.child.kill('SIGKILL');
        await bench.seen[0]?.sender.lost(AbortSignal.timeout(60_000));
        await untilGone(client);
      });

      it('takes back without FIFOs, too, what nobody picked up', async () => {
        await using bench = await openSpoolBench();
        writeFileSync(bench.path('spool/out/no-fifo'), '');
        await bench.stop();
        const client = bench.client(argv, ['signal', 'backup', 'pre', '--connect-timeout', '1s']);
        assert.equal(await client.ended, 69);
        assert.equal(client.err(), 'sidehook: backup pre: no sidecar picked it up within 1s\n');
        assert.equal(inbox(bench), '');
        await untilGone(client);
      });
    });
  }
});

const counts = new Set<string>();

/** Whether that many different counts have been seen in a row of calls. */
function countChanges(dir: string, wanted: number): boolean {
  const [life] = readdirSync(dir).filter((name) => name.endsWith('.life'));
  if (life !== undefined) counts.add(`${life} ${readFileSync(join(dir, life), 'utf8')}`);
  return (
    [...counts].filter((count) => life !== undefined && count.startsWith(life) && /\d/.test(count.slice(life.length)))
      .length >= wanted
  );
}
