import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Program } from '../../src/core/hook.ts';
import { exitCodeOf } from '../../src/core/result.ts';
import { docker, engineHost } from '../support/engine.ts';
import { ensureImage, SCRIPTING } from '../support/images.ts';
import { until } from '../support/until.ts';
import { aCall, aSink, RUN, runToEnd } from './contract.ts';
import { aScript, type DockerBench, openDockerBench } from './docker-bench.ts';

const shell = (line: string): Program => ({ kind: 'shell', line });
const LONG = `# ${'é comment, '.repeat(40)}\n`.repeat(800); // 370 KB: more than one argument can hold

describe('what a hook gets in a container', () => {
  const scripts: Record<string, readonly [interpreter: readonly string[], text: string]> = {
    sh: [['/bin/sh'], 'printf "%s|" "$#" "$1" "$2" "$(wc -c)"'],
    'sh -eu': [['/bin/sh', '-eu'], 'printf "%s|" "$#" "$1" "$2" "$(wc -c)"; false; echo on'],
    'a long sh': [['/bin/sh'], `${LONG}printf "%s|" "$#" "$1" "$2" "$(wc -c)"`],
    'env bash': [['/usr/bin/env', 'bash'], '[[ $1 == b* ]] && printf "%s|" "$#" "$1" "$2" "$(wc -c)"'],
    python: [
      ['/usr/bin/env', 'python3'],
      'import sys; print(len(sys.argv) - 1, *sys.argv[1:], len(sys.stdin.read()), sep="|", end="|")',
    ],
    'a long python': [
      ['/usr/bin/python3', '-u'],
      `${LONG}import sys; print(len(sys.argv) - 1, *sys.argv[1:], len(sys.stdin.read()), sep="|", end="|")`,
    ],
    perl: [['/usr/bin/perl', '-w'], 'print join("|", scalar(@ARGV), @ARGV, length(join("", <STDIN>)), "");'],
    awk: [
      ['/usr/bin/awk', '-f'],
      'BEGIN { n = getline line < "-"; printf "%d|%s|%s|%d|", ARGC - 1, ARGV[1], ARGV[2], n }',
    ],
  };

  it('a script gets two arguments and an empty input, as any user on a read-only root', async ({ signal }) => {
    await ensureImage(SCRIPTING);
    await using bench = await openDockerBench({
      image: SCRIPTING,
      args: ['sleep', '3600'],
      user: '1000',
      flags: ['--read-only', '--cap-drop', 'ALL'],
    });
    for (const [name, [interpreter, text]] of Object.entries(scripts)) {
      const call = aCall(bench.workload, aScript(interpreter, `#!${interpreter.join(' ')}\n${text}\n`));
      const result = await runToEnd(bench.driver, call, signal);
      const status = name === 'sh -eu' ? { status: 'failed', exitCode: 1 } : { status: 'succeeded' };
      assert.deepEqual(result, { outcome: status, out: '2|backup|pre|0|', err: '' }, name);
    }
  });

  it('a script of node gets its two arguments', async ({ signal }) => {
    const image = await ensureImage('node:26-alpine');
    await using bench = await openDockerBench({ image, args: ['sleep', '3600'], flags: ['--read-only'] });
    const text =
      "#!/usr/bin/env node\nconst { readFileSync } = require('node:fs');\n" +
      "console.log(process.argv.slice(2).join('|'), readFileSync(0).length);\nprocess.exit(5);\n";
    const result = await runToEnd(bench.driver, aCall(bench.workload, aScript(['/usr/bin/env', 'node'], text)), signal);
    assert.deepEqual(result, { outcome: { status: 'failed', exitCode: 5 }, out: 'backup|pre 0\n', err: '' });
  });

  it('a script of Python runs where there is no shell', async ({ signal }) => {
    await ensureImage(SCRIPTING);
    const flags = ['--volume', '/dev/null:/usr/bin/dash:ro', '--volume', '/dev/null:/usr/bin/bash:ro'];
    await using bench = await openDockerBench({ image: SCRIPTING, args: ['sleep', '3600'], flags });
    const script = aScript(['/usr/bin/env', 'python3'], 'import sys; print(sys.argv[1:]); sys.exit(4)');
    const result = await runToEnd(bench.driver, aCall(bench.workload, script), signal);
    assert.deepEqual(result, { outcome: { status: 'failed', exitCode: 4 }, out: "['backup', 'pre']\n", err: '' });

    const outcome = (await runToEnd(bench.driver, aCall(bench.workload, aScript(['awk', '-f'], 'x')), signal)).outcome;
    assert.equal(exitCodeOf(outcome), 127);
    assert.match(JSON.stringify(outcome), /has no sh\b/);
  });

  it('its name is $0, and every letter of its text arrives', async ({ signal }) => {
    await using bench = await openDockerBench();
    const odd = `'"$HOME" \\n \`x\` %s * ü \t`;
    const call = aCall(bench.workload, aScript(['/bin/sh'], `cat <<'END'\n$0\n${odd}\nEND\necho "$0"`));
    const { out } = await runToEnd(bench.driver, call, signal);
    assert.equal(out, `$0\n${odd}\n20-dump\n`);
  });

  it('a label gets operation and state in its environment alone, and its step', async ({ signal }) => {
    await using bench = await openDockerBench({ env: { OWN: 'container' } });
    const env = { SIDEHOOK_PARAM_X: 'a b\n"c"' };
    const line = 'printf "%s|" "$#" "$SIDEHOOK_OPERATION" "$SIDEHOOK_PARAM_X" "$SIDEHOOK_STEP" "$OWN"';
    const { out } = await runToEnd(bench.driver, aCall(bench.workload, shell(line), { env }), signal);
    assert.equal(out, `0|backup|a b\n"c"|${RUN}/1|container|`);
    const argv: Program = { kind: 'argv', argv: ['printf', '%s|', '$HOME', 'a b', ''] };
    assert.equal((await runToEnd(bench.driver, aCall(bench.workload, argv), signal)).out, '$HOME|a b||');
  });

  it('user and workdir are the operator’s; what is not there is said', async ({ signal }) => {
    await using bench = await openDockerBench();
    const settings = { user: 'app', workdir: '/tmp' };
    const { out } = await runToEnd(bench.driver, aCall(bench.workload, shell('id -u; pwd'), settings), signal);
    assert.equal(out, '1000\n/tmp\n');
    for (const [wrong, says] of [
      [{ user: 'nobody-here' }, /nobody-here/],
      [{ workdir: '/not-here' }, /not-here/],
    ] as const) {
      const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, shell('true'), wrong), signal);
      assert.equal(outcome.status, 'broken');
      assert.equal(exitCodeOf(outcome), 126);
      assert.match(JSON.stringify(outcome), says);
    }
  });

  it('what cannot be executed is 126, what is not there 127, each with its name', async ({ signal }) => {
    await using bench = await openDockerBench();
    const run = async (...argv: string[]) =>
      (await runToEnd(bench.driver, aCall(bench.workload, { kind: 'argv', argv }), signal)).outcome;
    assert.deepEqual(await run('absent', 'x'), {
      ...{ status: 'broken', exitCode: 127 },
      why: `container ${bench.workload.name} has no absent`,
    });
    const refused = await run('/etc/passwd');
    assert.equal(exitCodeOf(refused), 126);
    assert.match(JSON.stringify(refused), /\/etc\/passwd.*permission denied/);
  });

  it('refuses a text that cannot travel', async ({ signal }) => {
    await using bench = await openDockerBench();
    for (const text of ['a\0b', '#'.repeat(2_000_000)]) {
      const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, aScript(['/bin/sh'], text)), signal);
      assert.equal(outcome.status, 'broken');
      assert.equal(exitCodeOf(outcome), 78);
    }
  });
});

describe('what a hook prints in a container', () => {
  for (const flags of [[], ['--tty']]) {
    it(`arrives byte by byte, errors apart (${flags.join('') || 'no tty'})`, async ({ signal }) => {
      await using bench = await openDockerBench({ flags });
      const line =
        'i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i + 1)); done; printf "\\r\\n" >&2';
      const { sink, outputs } = aSink();
      await bench.driver.exec(aCall(bench.workload, shell(line)), sink, signal);
      const out = outputs.filter(({ stream }) => stream === 'out').map(({ bytes }) => bytes);
      assert.deepEqual(
        [...Buffer.concat(out)],
        Array.from({ length: 256 }, (_, byte) => byte),
      );
      const err = outputs.filter(({ stream }) => stream === 'err').map(({ bytes }) => bytes);
      assert.equal(Buffer.concat(err).toString(), '\r\n');
    });
  }

  it('is never kept: 200 MB through a slow reader in bounded memory', async ({ signal }) => {
    await using bench = await openDockerBench();
    await using driver = await bench.open({ host: engineHost() }); // the proxy would be measured as well
    await runToEnd(driver, aCall(bench.workload, shell('dd if=/dev/zero bs=1M count=20 2>/dev/null')), signal);
    const before = process.memoryUsage().rss;
    let [bytes, most] = [0, 0];
    let calls = 0;
    const outcome = await driver.exec(
      aCall(bench.workload, shell('dd if=/dev/zero bs=1M count=200 2>/dev/null; exit 3')),
      async (output) => {
        bytes += output.bytes.length;
        calls += 1;
        if (calls % 64 === 0) {
          await pause(1);
          most = Math.max(most, process.memoryUsage().rss - before);
        }
      },
      signal,
    );
    assert.deepEqual(outcome, { status: 'failed', exitCode: 3 });
    assert.equal(bytes, 200 * 1024 * 1024);
    assert.ok(most < 96 * 1024 * 1024, `memory grew by ${most} bytes`);
  });

  it('waits for its reader, and is whole, although the hook has ended', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { sink, text } = aSink();
    let isFirst = true;
    const outcome = await bench.driver.exec(
      aCall(bench.workload, shell('seq 20000')),
      async (output) => {
        if (isFirst) await pause(1_500);
        isFirst = false;
        await sink(output);
      },
      signal,
    );
    assert.deepEqual(outcome, { status: 'succeeded' });
    assert.equal(text('out'), Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join(''));
  });

  it('may end before the hook does', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { outcome } = await runToEnd(
      bench.driver,
      aCall(bench.workload, shell('exec >&- 2>&-; sleep 1; exit 9')),
      signal,
    );
    assert.deepEqual(outcome, { status: 'failed', exitCode: 9 });
  });

  it('does not hold the hook up when a child keeps it open', async ({ signal }) => {
    await using bench = await openDockerBench();
    const line = 'sleep 3600 & while :; do echo noise; sleep 1; done & echo done; exit 5';
    const { outcome, out } = await runToEnd(bench.driver, aCall(bench.workload, shell(line)), signal);
    assert.deepEqual(outcome, { status: 'failed', exitCode: 5 });
    assert.match(out, /done\n/);
    assert.equal(await bench.countMarked(`${RUN}/`), 3);
  });
});

describe('the end of a hook in a container', () => {
  const cutShort = async (bench: DockerBench, program: Program, signal: AbortSignal, mark = `${RUN}/1`) => {
    const { sink, text } = aSink();
    const cancel = new AbortController();
    const call = aCall(bench.workload, program, { mark });
    const ended = bench.driver.exec(call, sink, AbortSignal.any([signal, cancel.signal]));
    await until(() => text('out').includes('ready'), { what: 'the hook', signal });
    cancel.abort(new Error('enough'));
    return { outcome: await ended, text };
  };
  const countSleeps = async (bench: DockerBench) =>
    Number(await docker('exec', bench.workload.instance, 'sh', '-c', 'ps | grep -c "[s]leep 77"; true'));

  it('takes those with it that left session, parent and terminal, or ignore TERM', async ({ signal }) => {
    await using bench = await openDockerBench();
    const line =
      'trap "" TERM; setsid sleep 771 & (setsid sleep 772 &); nohup sleep 773 & ' +
      'sh -c "sh -c \\"sleep 774 & wait\\" & wait" & sleep 0.2; echo ready; sleep 775';
    const { outcome } = await cutShort(bench, shell(line), signal);
    assert.deepEqual(outcome, { status: 'canceled', reason: 'enough' });
    assert.equal(await countSleeps(bench), 0);
  });

  it('takes those with it that became another user, where nobody may read their environment', async ({ signal }) => {
    await using bench = await openDockerBench();
    const line =
      'su app -c "sleep 776 & sleep 777" & (setsid su app -c "sleep 778" &); sleep 0.5; echo ready; sleep 779';
    await cutShort(bench, shell(line), signal);
    assert.equal(await countSleeps(bench), 0);
  });

  it('comes also to one that was about to start', async ({ signal }) => {
    await using bench = await openDockerBench();
    for (let round = 0; round < 3; round += 1) {
      const cancel = new AbortController();
      bench.proxy.requests.length = 0;
      const ended = bench.driver.exec(aCall(bench.workload, shell('sleep 771')), aSink().sink, cancel.signal);
      const isAsked = () => bench.proxy.requests.some((request) => request.endsWith('/start'));
      await until(isAsked, { what: 'the start to be asked', signal, everyMs: 1 });
      cancel.abort(new Error('enough'));
      assert.deepEqual(await ended, { status: 'canceled', reason: 'enough' });
      assert.equal(await countSleeps(bench), 0);
    }
  });

  it('lets them say their last words', async ({ signal }) => {
    await using bench = await openDockerBench();
    const line = 'trap "echo cleaning; exit 0" TERM; echo ready; while :; do sleep 1; done';
    const { outcome, text } = await cutShort(bench, shell(line), signal);
    assert.equal(outcome.status, 'canceled');
    assert.equal(text('out'), 'ready\ncleaning\n');
  });

  it('works for a user other than root, with a script and with all capabilities dropped', async ({ signal }) => {
    await using bench = await openDockerBench({ user: '1000', flags: ['--cap-drop', 'ALL', '--read-only'] });
    const { outcome } = await cutShort(bench, aScript(['/bin/sh'], 'sleep 771 & echo ready; sleep 772'), signal);
    assert.equal(outcome.status, 'canceled');
    assert.equal(await countSleeps(bench), 0);
  });

  it('leaves another step alone whose mark begins alike, and the container’s own', async ({ signal }) => {
    await using bench = await openDockerBench();
    const cancel = new AbortController();
    const { sink, text } = aSink();
    const call = aCall(bench.workload, shell('echo ready; exec sleep 771'), { mark: `${RUN}/10` });
    const other = bench.driver.exec(call, sink, cancel.signal);
    await until(() => text('out') === 'ready\n', { what: 'the other hook', signal });
    await cutShort(bench, shell('echo ready; exec sleep 772'), signal, `${RUN}/1`);
    assert.equal(await countSleeps(bench), 1);
    assert.equal(await bench.state(), 'running');
    cancel.abort(new Error('enough'));
    await other;
    assert.equal(await countSleeps(bench), 0);
  });

  it('is reached without a shell where its processes can be seen, and else said to be out of reach', async ({
    signal,
  }) => {
    await using bench = await openDockerBench({ flags: ['--volume', '/dev/null:/bin/sh:ro'], args: ['sleep', '3600'] });
    const { sink, text } = aSink();
    const cancel = new AbortController();
    const program: Program = { kind: 'argv', argv: ['busybox', 'yes', 'ready'] };
    const ended = bench.driver.exec(aCall(bench.workload, program), sink, cancel.signal);
    await until(() => text('out').includes('ready'), { what: 'the hook', signal });
    cancel.abort(new Error('enough'));
    const outcome = await ended;
    assert.equal(outcome.status, 'canceled');
    const running = await docker('top', bench.workload.instance);
    const isTold = JSON.stringify(outcome).includes('no shell') && bench.said.join().includes('could not be ended');
    assert.ok(isTold === running.includes('yes'), `${JSON.stringify(outcome)}\n${running}`);
  });

  it('cannot be brought about in a paused container: said, and made up for later', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { sink, text } = aSink();
    const cancel = new AbortController();
    const ended = bench.driver.exec(aCall(bench.workload, shell('echo ready; sleep 771')), sink, cancel.signal);
    await until(() => text('out') === 'ready\n', { what: 'the hook', signal });
    await docker('pause', bench.workload.instance);
    cancel.abort(new Error('enough'));
    assert.match(JSON.stringify(await ended), /could not be ended.*paused/);
    assert.match(bench.said.join(), /could not be ended.*paused/);
    await assert.rejects(bench.driver.endLeftovers(bench.workload, `${RUN}/`, signal), /paused/);
    await docker('unpause', bench.workload.instance);
    await bench.driver.endLeftovers(bench.workload, `${RUN}/`, signal);
    assert.equal(await countSleeps(bench), 0);
  });

  it('is 69 when the engine is away in the middle, and what was left is ended later', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { sink, text } = aSink();
    const ended = bench.driver.exec(aCall(bench.workload, shell('echo ready; sleep 771')), sink, signal);
    await until(() => text('out') === 'ready\n', { what: 'the hook', signal });
    await bench.proxy.cut();
    const outcome = await ended;
    assert.equal(outcome.status, 'broken');
    assert.equal(exitCodeOf(outcome), 69);
    await bench.proxy.mend();
    await bench.driver.endLeftovers(bench.workload, `${RUN}/`, signal);
    assert.equal(await countSleeps(bench), 0);
  });

  it('is known although the connection was cut for a moment; the lost output is said', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { sink, text } = aSink();
    const ended = bench.driver.exec(aCall(bench.workload, shell('echo ready; sleep 4; exit 6')), sink, signal);
    await until(() => text('out') === 'ready\n', { what: 'the hook', signal });
    await bench.proxy.cut();
    await bench.proxy.mend();
    assert.deepEqual(await ended, { status: 'failed', exitCode: 6 });
    assert.match(bench.said.join(), /output of a hook broke off/);
  });

  it('says so when its container was started anew under it', async ({ signal }) => {
    await using bench = await openDockerBench();
    const { sink, text } = aSink();
    const ended = bench.driver.exec(aCall(bench.workload, shell('echo ready; sleep 771')), sink, signal);
    await until(() => text('out') === 'ready\n', { what: 'the hook', signal });
    await docker('restart', '--time', '0', bench.workload.instance);
    const outcome = await ended;
    assert.equal(outcome.status, 'killed');
    assert.match(JSON.stringify(outcome), /stopped|started anew/);
  });

  it('names the signal that ended it', async ({ signal }) => {
    await using bench = await openDockerBench();
    for (const number of [9, 15]) {
      const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, shell(`kill -${number} $$`)), signal);
      assert.deepEqual(outcome, { status: 'killed', signal: number });
    }
  });

  it('finds the container that took its container’s place', async ({ signal }) => {
    await using bench = await openDockerBench();
    await bench.remove();
    const heir = await bench.add('db');
    const { outcome, out } = await runToEnd(bench.driver, aCall(bench.workload, shell('hostname')), signal);
    assert.deepEqual(outcome, { status: 'succeeded' });
    assert.equal(out.trim(), heir.instance.slice(0, 12));
  });
});
