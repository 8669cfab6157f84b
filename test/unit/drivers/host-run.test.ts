import assert from 'node:assert/strict';
import { chmod, mkdtempDisposable, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { HookCall, Program, Settings } from '../../../src/core/hook.ts';
import type { ProgramCall } from '../../../src/core/ports.ts';
import { type HostOptions, openHost } from '../../../src/drivers/host.ts';
import { until } from '../../support/until.ts';

const FIXTURES = fileURLToPath(new URL('../../fixtures/hooks.d/', import.meta.url));
const PATIENCE_MS = 60_000;
const isRoot = process.getuid?.() === 0;

function anOpenHost(options: Partial<HostOptions> = {}) {
  return openHost({ hooksDir: FIXTURES, env: { PATH: process.env.PATH }, timeoutGraceMs: 500, ...options });
}

type Wish = Partial<Settings> & {
  readonly operation?: string;
  readonly state?: HookCall['state'];
  readonly program?: Program;
  readonly env?: Record<string, string>;
  readonly mark?: string;
};

let calls = 0;

/** A call of a fixture, or of a program at a path. */
function aCall(
  name: string,
  { operation = 'backup', state = 'pre', program, env, mark, ...wish }: Wish = {},
): ProgramCall {
  const path = name.startsWith('/') ? name : join(FIXTURES, name);
  const settings: Settings = {
    while: 'running',
    timeoutMs: 1_000,
    onError: 'abort',
    retries: 0,
    retryDelayMs: 0,
    match: 'all',
    ...wish,
  };
  const call: HookCall = {
    hookId: `file:${name}`,
    name,
    operation,
    state,
    program: program ?? { kind: 'executable', path },
    settings,
    place: { kind: 'host' },
  };
  return { call, env: { SIDEHOOK_HOOK: name, ...env }, mark: mark ?? `test-${process.pid}-${++calls}` };
}

/** Runs it and gathers what it printed. */
async function run(call: ProgramCall, { signal, ...options }: Partial<HostOptions> & { signal?: AbortSignal } = {}) {
  const printed = { out: [] as Uint8Array[], err: [] as Uint8Array[] };
  const host = anOpenHost(options);
  const outcome = await host.run(
    call,
    async ({ stream, bytes }) => void printed[stream].push(bytes),
    signal ?? AbortSignal.timeout(PATIENCE_MS),
  );
  return { outcome, out: Buffer.concat(printed.out).toString(), err: Buffer.concat(printed.err).toString() };
}

/** A new executable of this content. */
async function aHook(content: string | Uint8Array, mode = 0o755) {
  const dir = await mkdtempDisposable(join(tmpdir(), 'host-'));
  await chmod(dir.path, 0o755);
  const path = join(dir.path, 'hook');
  await writeFile(path, content);
  await chmod(path, mode);
  return { path, dir: dir.path, [Symbol.asyncDispose]: () => dir.remove() };
}

/** The processes that carry this mark and are not dead. */
async function pidsOf(mark: string): Promise<number[]> {
  const pids: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (environment.includes(`SIDEHOOK_STEP=${mark}\0`)) pids.push(Number(pid));
  }
  return pids;
}

/** Resolves with a signal that aborts as soon as the hook has printed something. */
function abortedByOutput(reason: Error) {
  const controller = new AbortController();
  const sink = async () => controller.abort(reason);
  return { signal: controller.signal, sink };
}

describe('a host hook', () => {
  it('is called with operation and state, and nothing else', async () => {
    const { outcome, out, err } = await run(aCall('ok', { state: 'post' }));
    assert.deepEqual(outcome, { status: 'succeeded' });
    assert.equal(out, 'ok: 2 arguments: backup post\n');
    assert.equal(err, 'to standard error\n');
  });

  it('hands on its own exit code', async () => {
    assert.deepEqual((await run(aCall('fail-7'))).outcome, { status: 'failed', exitCode: 7 });
    assert.deepEqual((await run(aCall('soft-fail-75'))).outcome, { status: 'failed', exitCode: 75 });
  });

  it('may be one of TKLBAM, in shell, Python or Perl', async () => {
    for (const name of ['tklbam-shell', 'tklbam-python', 'tklbam-perl']) {
      const { outcome, out } = await run(aCall(name));
      assert.deepEqual([outcome, out], [{ status: 'succeeded' }, 'before backup\n'], name);
    }
    assert.deepEqual((await run(aCall('tklbam-perl', { operation: 'restore' }))).outcome, {
      status: 'failed',
      exitCode: 3,
    });
    const python = await run(aCall('tklbam-python', { operation: 'restore' }));
    assert.deepEqual([python.outcome, python.err], [{ status: 'failed', exitCode: 1 }, 'cannot restore\n']);
  });

  it('finds standard input empty, and may open its outputs anew', async () => {
    await using hook = await aHook('#!/bin/sh\ncat\necho done\n');
    assert.equal((await run(aCall(hook.path))).out, 'done\n');
    const { out, err } = await run(aCall('reopen'));
    assert.deepEqual([out, err], ['fine\n', 'oops\n']);
  });

  it('is heard all the same where nothing makes pipes, and does not wait for a child in the background', async () => {
    const env = { PATH: '/nonexistent' };
    const { outcome, out, err } = await run(aCall('ok'), { env });
    assert.deepEqual([outcome.status, out, err], ['succeeded', 'ok: 2 arguments: backup pre\n', 'to standard error\n']);
    await using hook = await aHook('#!/bin/sh\n/bin/sleep 1000 &\necho done\n');
    const call = aCall(hook.path);
    try {
      assert.equal((await run(call, { env })).out, 'done\n');
      assert.equal((await pidsOf(call.mark)).length, 1);
    } finally {
      await anOpenHost().endLeftovers(call.mark, AbortSignal.timeout(PATIENCE_MS));
    }
  });

  it('prints as much as it likes, whole, read no faster than it is taken', async () => {
    let [zeros, others, busy] = [0, '', 0];
    const outcome = await anOpenHost().run(
      aCall('noisy'),
      async ({ stream, bytes }) => {
        if (stream === 'out') assert.equal(++busy, 1, 'a second one before the first was taken');
        await new Promise((resolve) => setImmediate(resolve));
        if (stream === 'err') others += Buffer.from(bytes).toString();
        else {
          busy -= 1;
          zeros += bytes.length;
        }
      },
      AbortSignal.timeout(PATIENCE_MS),
    );
    assert.deepEqual([outcome.status, zeros, others], ['succeeded', 8_388_608, 'that is all\n']);
  });

  it('keeps every byte as it is', async () => {
    await using hook = await aHook("#!/bin/sh\nprintf '\\000\\377\\n\\r\\303'\n");
    const bytes: number[] = [];
    const sink = async (output: { bytes: Uint8Array }) => void bytes.push(...output.bytes);
    await anOpenHost().run(aCall(hook.path), sink, AbortSignal.timeout(PATIENCE_MS));
    assert.deepEqual(bytes, [0, 255, 10, 13, 195]);
  });

  it('has ended when it has exited, though a child of its keeps the output open and lives on', async () => {
    const call = aCall('background');
    const { outcome, out } = await run(call);
    assert.deepEqual(outcome, { status: 'succeeded' });
    const [, child] = /^child (\d+)$/m.exec(out) ?? [];
    try {
      assert.ok((await pidsOf(call.mark)).includes(Number(child)));
    } finally {
      await anOpenHost().endLeftovers(call.mark, AbortSignal.timeout(PATIENCE_MS));
    }
    assert.deepEqual(await pidsOf(call.mark), []);
  });

  it('inherits the environment without our secrets and settings for Node, and with what the call gives', async () => {
    await using hook = await aHook('#!/bin/sh\nenv\n');
    const env = {
      PATH: process.env.PATH,
      DATABASE_PASSWORD: 'theirs',
      SIDEHOOK_API_TOKEN: 'ours',
      SIDEHOOK_STATE_DIR_FILE: '/run/secrets/x',
      SIDEHOOK_PARAM_FORGED: 'x',
      SIDEHOOK_OUTCOME: 'x',
      NODE_OPTIONS: '--max-old-space-size=64',
    };
    const { out } = await run(aCall(hook.path, { env: { SIDEHOOK_PARAM_A: '1', SIDEHOOK_JOB: 'j' }, mark: 'm-1' }), {
      env,
    });
    const names = out.split('\n').map((line) => line.split('=')[0]);
    assert.ok(names.includes('PATH') && names.includes('DATABASE_PASSWORD'));
    assert.ok(/^SIDEHOOK_PARAM_A=1$/m.test(out) && /^SIDEHOOK_JOB=j$/m.test(out) && /^SIDEHOOK_STEP=m-1$/m.test(out));
    assert.deepEqual(
      names.filter((name) => Object.keys(env).includes(name ?? '') && name !== 'PATH' && name !== 'DATABASE_PASSWORD'),
      [],
    );
  });

  it('starts in / or where its header says', async () => {
    await using hook = await aHook('#!/bin/sh\npwd\n');
    assert.equal((await run(aCall(hook.path))).out, '/\n');
    assert.equal((await run(aCall(hook.path, { workdir: hook.dir }))).out, `${hook.dir}\n`);
    assert.deepEqual((await run(aCall(hook.path, { workdir: '/nonexistent' }))).outcome, {
      status: 'broken',
      exitCode: 78,
      why: 'workdir /nonexistent: no such directory',
    });
  });

  it('runs as another user where we are root', { skip: !isRoot }, async () => {
    await using hook = await aHook('#!/bin/sh\nid -u; id -g; id -G; echo "$USER $HOME"; echo fine >/dev/stderr\n');
    const { out, err } = await run(aCall(hook.path, { user: 'nobody' }));
    assert.match(out, /^65534\n65534\n65534\nnobody \//);
    assert.equal(err, 'fine\n');
    assert.match((await run(aCall(hook.path, { user: '1234:0' }))).out, /^1234\n0\n/);
    const { outcome } = await run(aCall(hook.path, { user: 'no-such-user' }));
    assert.deepEqual(outcome, {
      status: 'broken',
      exitCode: 78,
      why: 'user "no-such-user": no "no-such-user" in /etc/passwd',
    });
  });

  it('may be a shell line or a list of arguments', async () => {
    const shell = await run(aCall('line', { program: { kind: 'shell', line: 'echo "a  b"; exit 4' } }));
    assert.deepEqual([shell.outcome, shell.out], [{ status: 'failed', exitCode: 4 }, 'a  b\n']);
    assert.equal(
      (await run(aCall('argv', { program: { kind: 'argv', argv: ['echo', 'a  b', ';'] } }))).out,
      'a  b ;\n',
    );
  });

  it('tells which signal ended it', async () => {
    await using hook = await aHook('#!/bin/sh\nkill -SEGV $$\n');
    assert.deepEqual((await run(aCall(hook.path))).outcome, { status: 'killed', signal: constants.signals.SIGSEGV });
  });
});

describe('a host hook that cannot run', () => {
  const cases: Record<string, readonly [content: string | Uint8Array, exitCode: number, why: RegExp]> = {
    'has no #! line': ['echo hi\n', 126, /no #! line/],
    'is empty': ['', 126, /empty/],
    'begins with a byte order mark': ['\ufeff#!/bin/sh\n', 126, /byte order mark/],
    'names no interpreter': ['#!\n', 126, /names no interpreter/],
    'names an interpreter that is not there': [
      '#!/opt/bin/fish -x\n',
      127,
      /interpreter "\/opt\/bin\/fish" was not found$/,
    ],
    'has Windows line ends': [
      '#!/bin/sh\r\necho hi\r\n',
      127,
      /interpreter "\/bin\/sh\\r" was not found: .*carriage return/,
    ],
    'names an interpreter that is a directory': ['#!/bin\n', 126, /not executable/],
  };
  for (const [what, [content, exitCode, why]] of Object.entries(cases)) {
    it(`since it ${what} is broken, and says so`, async () => {
      await using hook = await aHook(content);
      const { outcome } = await run(aCall(hook.path));
      assert.ok(outcome.status === 'broken', JSON.stringify(outcome));
      assert.equal(outcome.exitCode, exitCode);
      assert.match(outcome.why, why);
    });
  }

  it('since it is gone, or not executable, is broken as in any shell', async () => {
    await using hook = await aHook('#!/bin/sh\n', 0o644);
    assert.equal((await run(aCall(hook.path))).outcome.status === 'broken', true);
    assert.deepEqual((await run(aCall(hook.path))).outcome, {
      status: 'broken',
      exitCode: 126,
      why: 'it or its interpreter is not executable for us, or its mount is noexec',
    });
    await rm(hook.path);
    assert.deepEqual((await run(aCall(hook.path))).outcome, {
      status: 'broken',
      exitCode: 127,
      why: `${hook.path}: not found`,
    });
  });

  it('for what `env` seeks in vain hands on the 127, with a reason', async () => {
    await using hook = await aHook('#!/usr/bin/env no-such-interpreter\n');
    const { outcome } = await run(aCall(hook.path));
    assert.deepEqual(outcome, {
      status: 'failed',
      exitCode: 127,
      why: 'is its interpreter "no-such-interpreter" there?',
    });
  });

  it('says which argument broke on a carriage return', async () => {
    await using hook = await aHook('#!/bin/sh -e\r\nexit 0\r\n');
    const { outcome } = await run(aCall(hook.path));
    assert.ok(outcome.status === 'failed' && /carriage return/.test(outcome.why ?? ''), JSON.stringify(outcome));
  });

  it('for too much in its environment is broken, not thrown', async () => {
    const { outcome } = await run(aCall('ok', { env: { SIDEHOOK_PARAM_A: 'x'.repeat(200_000) } }));
    assert.ok(outcome.status === 'broken' && outcome.exitCode === 126, JSON.stringify(outcome));
    const bad = await run(aCall('ok', { env: { SIDEHOOK_PARAM_A: 'a\0b' } }));
    assert.equal(bad.outcome.status, 'broken');
  });
});

describe('a host hook that is cut short', () => {
  it('is told to end, and what it says then is heard', async () => {
    let printed = '';
    const { signal, sink } = abortedByOutput(new DOMException('too long', 'TimeoutError'));
    const call = aCall('slow');
    const hear = async ({ bytes }: { bytes: Uint8Array }) => {
      printed += Buffer.from(bytes).toString();
      await sink();
    };
    const outcome = await anOpenHost({ timeoutGraceMs: PATIENCE_MS }).run(call, hear, signal);
    assert.deepEqual(outcome, { status: 'timed-out' });
    assert.equal(printed, 'started\ntold to end\n');
    assert.deepEqual(await pidsOf(call.mark), []);
  });

  it('is killed with all its children after the grace, those that left its session too', async () => {
    const { signal, sink } = abortedByOutput(new Error('the client is gone'));
    const call = aCall('stubborn');
    const outcome = await anOpenHost({ timeoutGraceMs: 100 }).run(call, sink, signal);
    assert.deepEqual(outcome, { status: 'canceled', reason: 'the client is gone' });
    assert.deepEqual(await pidsOf(call.mark), []);
  });

  it('keeps no run open through a sink that takes nothing any more', async () => {
    const controller = new AbortController();
    const sink = () => {
      controller.abort(new Error('stuck'));
      return new Promise<void>(() => {});
    };
    const outcome = await anOpenHost({ timeoutGraceMs: 100 }).run(aCall('slow'), sink, controller.signal);
    assert.deepEqual(outcome, { status: 'canceled', reason: 'stuck' });
  });

  it('is not even started when it is too late', async () => {
    await using hook = await aHook('#!/bin/sh\necho ran\n');
    const { outcome, out } = await run(aCall(hook.path), { signal: AbortSignal.abort(new Error('over')) });
    assert.deepEqual([outcome, out], [{ status: 'canceled', reason: 'over' }, '']);
  });
});

describe('what a dead sidecar left running', () => {
  it('is found by the beginning of its mark and ended, and nothing else is', async () => {
    const [left, other] = [
      aCall('stubborn', { mark: `left-${process.pid}.1` }),
      aCall('slow', { mark: `kept-${process.pid}.1` }),
    ];
    const controller = new AbortController();
    const host = anOpenHost({ timeoutGraceMs: 100 });
    const runs = [left, other].map((call) => host.run(call, async () => {}, controller.signal));
    const signal = AbortSignal.timeout(PATIENCE_MS);
    await until(async () => (await pidsOf(left.mark)).length >= 4, { what: 'the hook and its children', signal });

    await anOpenHost({ timeoutGraceMs: 100 }).endLeftovers(`left-${process.pid}.`, signal);
    assert.deepEqual(await pidsOf(left.mark), []);
    assert.deepEqual(await runs[0], { status: 'killed', signal: constants.signals.SIGKILL });
    assert.ok((await pidsOf(other.mark)).length > 0);
    controller.abort(new Error('enough'));
    await runs[1];
  });

  it('is never asked for without a mark', async () => {
    await assert.rejects(anOpenHost().endLeftovers('', AbortSignal.timeout(PATIENCE_MS)), /empty mark/);
  });
});

describe('a hundred host hooks', () => {
  it('leave no descriptor behind, one after the other or side by side', async () => {
    const host = anOpenHost();
    const descriptors = async () => (await readdir('/proc/self/fd')).length;
    const once = () => host.run(aCall('ok'), async () => {}, AbortSignal.timeout(PATIENCE_MS));
    await Promise.all(Array.from({ length: 30 }, once));
    const before = await descriptors();
    for (let count = 0; count < 50; count++) assert.equal((await once()).status, 'succeeded');
    const outcomes = await Promise.all(Array.from({ length: 30 }, once));
    assert.ok(outcomes.every(({ status }) => status === 'succeeded'));
    // A pipe made once is kept for the next hook, and how many are needed at once is chance: 160 were used since.
    await until(async () => (await descriptors()) <= before + 40, { what: 'all descriptors to be closed' });
  });
});
