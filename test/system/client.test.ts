import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { shells } from '../support/shells.ts';
import { anAnswer, type Client, obliging, openSpoolBench, type Script, startClient } from '../support/spool.ts';
import { until } from '../support/until.ts';

const CODES = [0, 1, 3, 42, 65, 75, 124, 126, 127, 137];

/** Answers this state with this code, and obliges otherwise. */
function refusing(state: string, exitCode: number): Script {
  return (delivery) =>
    delivery.request.state === state ? delivery.answer(anAnswer(exitCode, { runId: 'run-1' })) : obliging(delivery);
}

const lastLine = (client: Client) => client.err().trimEnd().split('\n').at(-1);
const aCommand = (script: string, ...args: string[]) => ['--', 'sh', '-c', script, 'sh', ...args];

/** Side by side, since most of it is waiting. */
describe('the client', { concurrency: 3 }, () => {
  for (const [shell, argv] of shells) {
    /** yash takes in no letter that its locale does not have. */
    const locale = shell === 'yash' ? { LC_ALL: 'C.UTF-8' } : {};
    const letters = shell === 'yash' ? '?? ??' : 'é ü';

    describe(`in ${shell}`, () => {
      it('asks for pre, runs the command with its own input and output, and asks for post', async () => {
        await using bench = await openSpoolBench({
          async script(delivery) {
            await delivery.output({ stream: 'out', bytes: Buffer.from(`out of ${delivery.request.state}\n`) });
            await delivery.output({ stream: 'err', bytes: Buffer.from(`err of ${delivery.request.state}\n`) });
            await delivery.answer(anAnswer(0, { runId: 'run-1', notes: [`note of ${delivery.request.state}: é ü`] }));
          },
        });
        const input = randomBytes(300_000);
        const client = bench.client(argv, ['run', 'backup', '--job', 'nightly', '--', 'cat'], { input });
        assert.equal(await client.ended, 0, client.err());
        assert.deepEqual(client.bytes(), input);
        assert.deepEqual(client.err().split('\n').toSorted(compare), [
          ...['', 'err of post', 'err of pre', 'out of post', 'out of pre'],
          ...[`sidehook: note of post: ${letters}`, `sidehook: note of pre: ${letters}`],
        ]);
        const [pre, post] = bench.seen.map(({ request: { id, ...request } }) => request);
        const both = {
          client: 'default',
          operation: 'backup',
          job: 'nightly',
          lease: 'held',
          outcome: 'success',
          params: {},
        };
        assert.deepEqual(pre, { ...both, state: 'pre', waitMs: 3_600_000 });
        assert.deepEqual(post, { ...both, state: 'post', waitMs: 0, runId: 'run-1', status: 0 });
        await until(() => readDirectory(bench.path('spool/in')) === '', { what: 'its files to be gone' });
      });

      it('passes on the exit code of the command, and tells post of it', async () => {
        await using bench = await openSpoolBench();
        for (const code of CODES) {
          const script = code === 137 ? 'kill -9 $$' : `exit ${code}`;
          const client = bench.client(argv, ['run', 'backup', ...aCommand(script)]);
          assert.equal(await client.ended, code, client.err());
          const { request } = bench.seen.at(-1) ?? assert.fail();
          assert.deepEqual(
            [request.state, request.status, request.outcome],
            ['post', code, code === 0 ? 'success' : 'failure'],
          );
          const how = code === 137 ? 'was ended by signal 9' : `exited ${code}`;
          assert.equal(client.err(), code === 0 ? '' : `sidehook: backup: the command ${how}\n`);
        }
      });

      it('says 127 and 126 of a command that is not there, or cannot be executed', async () => {
        await using bench = await openSpoolBench();
        for (const [command, code] of [
          ['/nonexistent/x', 127],
          ['nonexistent-x', 127],
          ['/etc/passwd', 126],
        ] as const) {
          const client = bench.client(argv, ['run', 'backup', '--', command]);
          assert.equal(await client.ended, code, client.err());
          assert.equal(bench.seen.at(-1)?.request.status, code);
          assert.equal(lastLine(client), `sidehook: backup: the command exited ${code}`);
        }
      });

      it('passes on the exit code of a hook, and runs no command after a failed pre', async () => {
        await using bench = await openSpoolBench();
        for (const code of CODES.slice(1)) {
          bench.setScript(refusing('pre', code));
          const client = bench.client(argv, ['run', 'backup', ...aCommand('echo ran')]);
          assert.equal(await client.ended, code);
          assert.equal(client.out(), '');
          assert.equal(client.err(), `sidehook: it exited ${code}\n`);
        }
        assert.ok(bench.seen.every(({ request }) => request.state === 'pre'));
        for (const code of CODES.slice(1)) {
          bench.setScript(refusing('post', code));
          const client = bench.client(argv, ['run', 'backup', ...aCommand('echo ran')]);
          assert.equal(await client.ended, code);
          assert.equal(client.out(), 'ran\n');
          assert.equal(client.err(), `sidehook: it exited ${code}\n`);
        }
      });

      it('lets the code of the command win over that of post', async () => {
        await using bench = await openSpoolBench({ script: refusing('post', 65) });
        const client = bench.client(argv, ['run', 'backup', ...aCommand('exit 3')]);
        assert.equal(await client.ended, 3);
        assert.equal(client.err(), 'sidehook: it exited 65\nsidehook: backup: the command exited 3\n');
      });

      it('hands every argument to the command as it is', async () => {
        await using bench = await openSpoolBench();
        const args = [
          'a b',
          '',
          '*',
          "'",
          '"',
          '$HOME',
          '`id`',
          '\\',
          '\\n',
          'line\nline\n',
          '--',
          '-n',
          '--job',
          'é',
          '\t',
          '#',
        ];
        const client = bench.client(argv, ['run', 'backup', '--', 'printf', '%s\\0', ...args], { env: locale });
        assert.equal(await client.ended, 0, client.err());
        assert.deepEqual(client.out().split('\0'), [...args, '']);
      });

      it('gives the command its environment, umask and descriptors, and what it must know beside', async () => {
        await using bench = await openSpoolBench();
        const env = {
          job: 'mine',
          run: 'mine',
          status: 'mine',
          IFS: 'x',
          line: '1',
          UMASK: '1',
          timeout: 'mine',
          ENV: '',
        };
        const script = 'umask; env; ls /proc/self/fd | tr "\\n" " "';
        const [program = '', ...rest] = argv;
        const inherit = ['-c', 'umask 027; exec "$@"', 'sh', program, ...rest];
        const client = bench.client(['sh', ...inherit], ['run', 'backup', ...aCommand(script)], { env });
        assert.equal(await client.ended, 0, client.err());
        const [umask, ...lines] = client.out().split('\n');
        assert.match(umask ?? '', /^0?027$/);
        for (const [name, value] of Object.entries({ ...env, IFS: undefined })) {
          if (value !== undefined) assert.ok(lines.includes(`${name}=${value}`), name);
        }
        const ours = lines.filter((line) => /^(SIDEHOOK_|sk_)/.test(line));
        assert.deepEqual(ours.toSorted(compare), [
          'SIDEHOOK_JOB=default',
          'SIDEHOOK_OPERATION=backup',
          'SIDEHOOK_RUN_ID=run-1',
        ]);
        const bare = startClient(['sh', '-c', 'exec 8</dev/null; ls /proc/self/fd | tr "\\n" " "'], {});
        await bare.ended;
        assert.equal(lines.at(-1), bare.out(), 'what we inherited ourselves, and the lease');
      });

      it('lives with a standard input that is closed, and leaves one alone that nobody asks for', async () => {
        await using bench = await openSpoolBench();
        const closed = bench.client(
          ['sh', '-c', 'exec "$@" <&-', 'sh', ...argv],
          ['run', 'backup', ...aCommand('cat; exit 3')],
        );
        assert.equal(await closed.ended, 3);
        const open = bench.client(argv, ['run', 'backup', ...aCommand('exit 4')], { input: 'open' });
        assert.equal(await open.ended, 4);
      });

      it('prints what hooks print while they run, each stream where it belongs, byte for byte', async () => {
        const junk = randomBytes(200_000);
        let client: Client | undefined;
        await using bench = await openSpoolBench({
          async script({ output, answer }) {
            await output({ stream: 'out', bytes: Buffer.from('first\n') });
            await until(() => client?.out() === 'first\n', { what: 'the first line to be read', everyMs: 5 });
            await output({ stream: 'err', bytes: Buffer.from('second\n') });
            await until(() => client?.err() === 'second\n', { what: 'the second line to be read', everyMs: 5 });
            await output({ stream: 'out', bytes: junk });
            await answer(anAnswer(7));
          },
        });
        client = bench.client(argv, ['signal', 'backup', 'pre']);
        assert.equal(await client.ended, 7);
        assert.deepEqual(client.bytes(), Buffer.concat([Buffer.from('first\n'), junk]));
        assert.equal(client.err(), 'second\nsidehook: it exited 7\n');
      });

      it('sends what it was told to, and nothing that could pass for more', async () => {
        await using bench = await openSpoolBench();
        const value = ' x y="z" $HOME `id` \\ \\n * é \'%s\' =';
        const params = ['--param', `A=${value}`, '--param=b=', '--param', 'C_1==1'];
        const more = ['--job', 'j.1', '--wait', '1m30s', '--lease=5s', '--connect-timeout', '1h'];
        const client = bench.client(argv, ['signal', 'backup', 'pre', ...params, ...more], { env: locale });
        assert.equal(await client.ended, 0, client.err());
        assert.equal(client.out() + client.err(), '');
        const { id, ...request } = bench.seen[0]?.request ?? assert.fail();
        assert.deepEqual(request, {
          ...{ client: 'default', operation: 'backup', state: 'pre', job: 'j.1', outcome: 'success' },
          ...{ waitMs: 90_000, lease: 5000, params: { A: value, B: '', C_1: '=1' } },
        });
        const refused = bench.client(argv, ['signal', 'backup', 'pre', '--param', 'A=x\nstate=post']);
        assert.equal(await refused.ended, 64);
        assert.equal(refused.err(), 'sidehook: --param: expected one line, got several; see sidehook --help\n');
        assert.equal(bench.seen.length, 1);
      });

      it('leaves the run in a file of its own, reads it from there, or takes it from its environment', async () => {
        const dir = mkdtempSync(join(tmpdir(), 'run-file-'));
        const file = join(dir, 'a run');
        await using bench = await openSpoolBench();
        const signal = (args: string[], env = {}) => bench.client(argv, ['signal', 'backup', ...args], { env }).ended;
        assert.equal(await signal(['pre', '--run-file', file]), 0);
        assert.equal(readFileSync(file, 'utf8'), 'run-1\n');
        assert.equal(await signal(['post', '--run-file', file, '--outcome', 'failure', '--status', '3']), 0);
        const { runId, outcome, status } = bench.seen[1]?.request ?? assert.fail();
        assert.deepEqual({ runId, outcome, status }, { runId: 'run-1', outcome: 'failure', status: 3 });

        const env = { SIDEHOOK_RUN_ID: 'run-2', SIDEHOOK_JOB: 'theirs', SIDEHOOK_OPERATION: 'backup' };
        assert.equal(await signal(['post'], env), 0);
        assert.deepEqual([bench.seen[2]?.request.runId, bench.seen[2]?.request.job], ['run-2', 'theirs']);
        assert.equal(await signal(['post', '--run=run-3', '--job=mine'], env), 0);
        assert.deepEqual([bench.seen[3]?.request.runId, bench.seen[3]?.request.job], ['run-3', 'mine']);
        assert.equal(await signal(['post'], { ...env, SIDEHOOK_OPERATION: 'restore' }), 0);
        assert.equal(bench.seen[4]?.request.runId, undefined);
        assert.equal(await signal(['pre'], env), 0);
        assert.equal(bench.seen[5]?.request.runId, undefined);

        writeFileSync(file, '');
        assert.equal(await signal(['post', '--run-file', file]), 64);
        assert.equal(await signal(['post', '--run-file', join(dir, 'none')]), 64);
        assert.equal(await signal(['pre', '--run-file', join(dir, 'no', 'directory')]), 64);
        assert.equal(bench.seen.length, 6);

        bench.setScript(async (delivery) => {
          if (delivery.request.state === 'pre') rmSync(file);
          if (delivery.request.state === 'pre') mkdirSync(file); // it was a file when that was asked
          await obliging(delivery);
        });
        const lost = bench.client(argv, ['signal', 'backup', 'pre', '--lease', '1m', '--run-file', file]);
        assert.equal(await lost.ended, 70);
        const why = `cannot write the run run-1 to ${file}, so it was ended again`;
        assert.equal(lost.err(), `sidehook: backup pre: ${why}\n`);
        const ended = bench.seen.at(-1)?.request ?? assert.fail();
        assert.deepEqual([ended.state, ended.runId, ended.outcome], ['post', 'run-1', 'failure']);
        rmSync(dir, { recursive: true });
      });

      it('says that a restore has begun before it begins, and lets it be refused', async () => {
        await using bench = await openSpoolBench();
        const client = bench.client(argv, ['run', 'restore', ...aCommand('echo ran')]);
        assert.equal(await client.ended, 0);
        assert.deepEqual(bench.asked(), ['restore pre', 'restore started', 'restore post']);
        bench.setScript(refusing('started', 65));
        const refused = bench.client(argv, ['run', 'restore', ...aCommand('echo ran')]);
        assert.equal(await refused.ended, 65);
        assert.equal(refused.out(), '');
        const { request } = bench.seen.at(-1) ?? assert.fail();
        assert.deepEqual([request.state, request.outcome, request.status], ['post', 'failure', undefined]);
      });

      it('says in one line what was wrong with how it was called, and asks nobody', async () => {
        await using bench = await openSpoolBench();
        for (const args of [
          ...[
            [],
            ['sing'],
            ['run'],
            ['run', 'backup'],
            ['run', 'backup', '--'],
            ['run', 'backup', 'cat'],
            ['run', 'a/b', '--', 'x'],
          ],
          ...[
            ['run', 'backup', '--job'],
            ['run', 'backup', '--colour', 'red', '--', 'cat'],
            ['run', 'backup', '--', '-x'],
          ],
          ...[
            ['run', 'backup', '--lease', '1s', '--', 'cat'],
            ['run', 'backup', '--timeout', 'soon', '--', 'cat'],
          ],
          ...[
            ['signal', 'backup'],
            ['signal', 'backup', 'start'],
            ['signal', 'backup', 'pre', '--wait', '5'],
          ],
          ...[['signal', 'backup', 'pre', '--', 'cat'], ['signal', 'backup', 'pre', '--param', '=1'], ['-x']],
          ...[
            ['signal', 'backup', 'pre', '--param', 'A'],
            ['signal', '--job', 'x', 'backup', 'pre'],
          ],
        ]) {
          const client = bench.client(argv, args);
          assert.equal(await client.ended, 64, args.join(' '));
          assert.match(client.err(), /^sidehook: [^\n]+\n$/, args.join(' '));
        }
        for (const args of [['--help'], ['--version']]) {
          const client = bench.client(argv, args);
          assert.equal(await client.ended, 0);
          assert.match(client.out(), /sidehook/);
          assert.equal(client.err(), '');
        }
        assert.equal(bench.seen.length, 0);
      });

      it('hands back what the sidecar refuses', async () => {
        await using bench = await openSpoolBench();
        const client = bench.client(argv, ['signal', 'backup', 'pre', '--param', 'A=1', '--param', 'a=2']);
        assert.equal(await client.ended, 64);
        assert.match(client.err(), /^sidehook: param a: expected each name once.*\n$/);
      });

      it('finds its directory by itself, or is told', async () => {
        await using bench = await openSpoolBench();
        const copy = mkdtempSync(join(tmpdir(), 'copy of client-'));
        writeFileSync(join(copy, 'sidehook'), readFileSync(bench.path('sidehook')));
        for (const [cwd, script, env, code] of [
          [bench.dir, './sidehook', {}, 0],
          [bench.dir, 'sidehook', {}, 0],
          [copy, 'sidehook', { SIDEHOOK_DIR: bench.dir }, 0],
          [copy, 'sidehook', { SIDEHOOK_DIR: copy }, 69],
        ] as const) {
          const client = startClient([...argv, script, 'signal', 'backup', 'post'], { cwd, env });
          assert.equal(await client.ended, code, `${cwd} ${script}: ${client.err()}`);
        }
        rmSync(copy, { recursive: true });
      });
    });
  }
});

function compare(one: string, other: string): number {
  return one < other ? -1 : 1;
}

function readDirectory(path: string): string {
  return readdirSync(path).join(' ');
}
