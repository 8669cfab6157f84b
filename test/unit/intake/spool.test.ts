import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { constants, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rm, stat, unlink } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import type { Delivery } from '../../../src/core/ports.ts';
import { LARGEST_OUTPUT } from '../../../src/intake/spool-delivery.ts';
import { anAnswer, clientScript, openSpoolBench, type SpoolBench, untilAsked } from '../../support/spool.ts';
import { until } from '../../support/until.ts';

const run = promisify(execFile);
const SENDER = 'aaaaaaaa-0000';

/** What a client does first: its FIFOs, held open. */
async function arrive(bench: SpoolBench, sender = SENDER) {
  const paths = ['life', 'bell'].map((ending) => bench.path('spool/in', `${sender}.${ending}`));
  await run('mkfifo', paths);
  const [life, bell] = await Promise.all(paths.map((path) => open(path, constants.O_RDWR | constants.O_NONBLOCK)));
  assert.ok(life && bell);
  const close = async () => void (await Promise.all([life.close(), bell.close()]));
  return { bell, [Symbol.asyncDispose]: close };
}

function ask(bench: SpoolBench, id: string, text = 'state=pre\n'): void {
  const path = bench.path('spool/in', id);
  writeFileSync(`${path}.tmp`, `version=1\noperation=backup\n${text}end=1\n`);
  renameSync(`${path}.tmp`, `${path}.req`);
}

function answerTo(bench: SpoolBench, id: string): Promise<string> {
  return until(() => readFile(bench.path('spool/out', `${id}.ans`), 'utf8').catch(() => undefined), {
    what: `an answer to ${id}`,
    everyMs: 10,
  });
}

async function allAnswered(bench: SpoolBench, ids: readonly string[]): Promise<void> {
  const missing = async () => {
    const files = new Set(await readdir(bench.path('spool/out')));
    return ids.filter((id) => !files.has(`${id}.ans`));
  };
  await until(async () => (await missing()).length === 0, { what: 'all answers' });
}

const bytes = (text: string) => Buffer.from(text);
const compare = (one: string, other: string) => (one < other ? -1 : 1);
const never = () => undefined;

describe('the spool', () => {
  it('makes its directories for the group alone, and publishes the client', async () => {
    await using bench = await openSpoolBench();
    const modeOf = async (path: string) => ((await stat(bench.path(path))).mode & 0o7777).toString(8);
    assert.equal(await modeOf(''), '770');
    assert.equal(await modeOf('spool/in'), '3730');
    assert.equal(await modeOf('spool/out'), '2750');
    assert.equal(await modeOf('sidehook'), '755');
    assert.equal(await readFile(bench.path('sidehook'), 'utf8'), clientScript);
  });

  it('delivers a request as it was asked, and its answer where it can be read', async () => {
    await using bench = await openSpoolBench();
    ask(bench, `${SENDER}.1`, 'state=pre\njob=nightly\nparam.tag=a b\nlease=held\nwait=5s\n');
    assert.equal(await answerTo(bench, `${SENDER}.1`), 'exit=0\nrun=run-1\nend=1\n');
    const { request, sender } = bench.seen[0] as Delivery;
    assert.equal(sender.ref, `spool/default/${SENDER}`);
    assert.deepEqual(request, {
      ...{ id: `${SENDER}.1`, client: 'default', operation: 'backup', state: 'pre', job: 'nightly' },
      ...{ params: { TAG: 'a b' }, waitMs: 5000, lease: 'held', outcome: 'success' },
    });
    await until(async () => (await readdir(bench.path('spool/in'))).length === 0, { what: 'the request to be gone' });
  });

  it('appends output to a file for each stream, byte for byte, in order, and creates none without output', async () => {
    const junk = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    await using bench = await openSpoolBench({
      async script({ output, answer }) {
        void output({ stream: 'out', bytes: junk });
        void output({ stream: 'out', bytes: bytes('second') });
        await answer(anAnswer(3));
      },
    });
    ask(bench, `${SENDER}.1`);
    assert.match(await answerTo(bench, `${SENDER}.1`), /^exit=3\nmessage=it exited 3\nend=1\n$/);
    assert.deepEqual(
      await readFile(bench.path('spool/out', `${SENDER}.1.out`)),
      Buffer.concat([junk, bytes('second')]),
    );
    assert.ok(!(await readdir(bench.path('spool/out'))).includes(`${SENDER}.1.err`));
  });

  it('finds all of what arrives before it starts, while it starts, and at once', async () => {
    await using bench = await openSpoolBench();
    await bench.stop();
    const ids = Array.from({ length: 300 }, (_, index) => `sender-${String(index).padStart(4, '0')}.1`);
    for (const id of ids.slice(0, 100)) ask(bench, id);
    const started = bench.start();
    for (const id of ids.slice(100, 200)) ask(bench, id);
    await started;
    for (const id of ids.slice(200)) ask(bench, id);
    await allAnswered(bench, ids);
    assert.deepEqual(bench.seen.map(({ request }) => request.id).toSorted(compare), ids);
  });

  it('opens no more requests at once than it has room for, and the others as room comes', async () => {
    const held: Delivery[] = [];
    await using bench = await openSpoolBench({ script: (delivery) => void held.push(delivery) });
    const ids = Array.from({ length: 300 }, (_, index) => `sender-${String(index).padStart(4, '0')}.1`);
    for (const id of ids) ask(bench, id);
    await until(() => held.length >= 256, { what: 'the first ones' });
    assert.equal(held.length, 256);
    bench.setScript(({ answer }) => answer(anAnswer(0)));
    await Promise.all(held.map(({ answer }) => answer(anAnswer(0))));
    await allAnswered(bench, ids);
  });

  it('gives a request to its client or to the daemon, whoever renames it first, and never to both', async () => {
    await using bench = await openSpoolBench();
    const withdrawn: string[] = [];
    const ids = Array.from({ length: 200 }, (_, index) => `sender-${String(index).padStart(4, '0')}.1`);
    for (const [index, id] of ids.entries()) {
      ask(bench, id);
      if (index % 3 === 0) await until(() => bench.seen.at(-1)?.request.id === id, { what: id, everyMs: 1 });
      if (index % 3 === 1) await stat(bench.dir); // about when it is taken
      try {
        renameSync(bench.path('spool/in', `${id}.req`), bench.path('spool/in', `${id}.withdrawn`));
        withdrawn.push(id);
      } catch {
        // it was taken
      }
    }
    const taken = ids.filter((id) => !withdrawn.includes(id));
    await allAnswered(bench, taken);
    assert.deepEqual(bench.seen.map(({ request }) => request.id).toSorted(compare), taken);
  });

  it('delivers the same request again when it comes again, after the first was answered', async () => {
    await using bench = await openSpoolBench({ script: never });
    ask(bench, `${SENDER}.1`);
    const first = await untilAsked(bench, 'pre');
    ask(bench, `${SENDER}.1`);
    bench.setScript(({ answer }) => answer(anAnswer(0, { notes: ['again'] })));
    await first.answer(anAnswer(0));
    await until(async () => (await answerTo(bench, `${SENDER}.1`)).includes('again'), { what: 'the second answer' });
    assert.equal(bench.seen.length, 2);
  });

  it('answers a bad request itself, with one line, and goes on', async () => {
    await using bench = await openSpoolBench();
    ask(bench, 'sender-bad.1', 'state=sideways\n');
    ask(bench, 'sender-bad.2', 'state=pre\ncolour=red\n');
    ask(bench, 'sender-bad.3', 'state=pre\nrun=../../x\n');
    writeFileSync(bench.path('spool/in/sender-bad.4.req'), 'version=1\noper');
    writeFileSync(bench.path('spool/in/sender-bad.5.req'), Buffer.alloc(10 * 1024 * 1024, 'x'));
    ask(bench, `${SENDER}.1`);
    assert.match(await answerTo(bench, 'sender-bad.1'), /^exit=64\nmessage=state: expected pre, .*\nend=1\n$/);
    assert.match(await answerTo(bench, 'sender-bad.2'), /^exit=64\nmessage=colour: .*\nend=1\n$/);
    assert.match(await answerTo(bench, 'sender-bad.3'), /^exit=64\nmessage=run: .*\nend=1\n$/);
    assert.match(await answerTo(bench, 'sender-bad.4'), /^exit=64\nmessage=request: .* half a file\nend=1\n$/);
    assert.match(await answerTo(bench, 'sender-bad.5'), /^exit=64\nmessage=request: .* 65536 bytes.*\nend=1\n$/);
    await answerTo(bench, `${SENDER}.1`);
    assert.equal(bench.seen.length, 1);
  });

  it('rings the bell for output and answer, and hangs up when it has answered or died', async () => {
    await using bench = await openSpoolBench({ script: never });
    await using client = await arrive(bench);
    const reader = await open(bench.path('spool/in', `${SENDER}.bell`), constants.O_RDONLY | constants.O_NONBLOCK);
    await client.bell.close();
    const read = () =>
      reader.read(Buffer.alloc(64)).then(
        ({ bytesRead }) => bytesRead,
        () => -1,
      );
    assert.equal(await read(), 0, 'nobody has it open yet');
    ask(bench, `${SENDER}.1`);
    const { output, answer } = await untilAsked(bench, 'pre');
    await until(async () => (await read()) > 0, { what: 'the bell that says taken', everyMs: 5 });
    await until(async () => (await read()) === -1, { what: 'the bell to be silent', everyMs: 5 });
    await output({ stream: 'out', bytes: bytes('x') });
    await until(async () => (await read()) > 0, { what: 'the bell that says output', everyMs: 5 });
    await answer(anAnswer(0));
    await until(async () => (await read()) === 0, { what: 'the end of file', everyMs: 5 });
    ask(bench, `${SENDER}.2`);
    await until(() => bench.seen.length === 2, { what: 'the second request' });
    await until(async () => (await read()) === -1, { what: 'the bell to be held', everyMs: 5 });
    await bench.stop();
    await until(async () => (await read()) === 0, { what: 'the end of file of a dead sidecar', everyMs: 5 });
    await reader.close();
  });

  it('wakes, at its start, a client whose answer a dead sidecar had put in place and not rung for', async () => {
    await using bench = await openSpoolBench();
    await bench.stop();
    await using client = await arrive(bench);
    writeFileSync(bench.path('spool/out', `${SENDER}.1.ans`), 'exit=0\nend=1\n');
    await bench.start();
    const read = () =>
      client.bell.read(Buffer.alloc(64)).then(
        ({ bytesRead }) => bytesRead,
        () => -1,
      );
    await until(async () => (await read()) > 0, { what: 'the bell that says look again', everyMs: 5 });
  });

  it('shows a client without a bell that it lives', async () => {
    await using bench = await openSpoolBench({ script: never });
    ask(bench, `${SENDER}.1`);
    const beat = () => readFile(bench.path('spool/out', `${SENDER}.1.beat`), 'utf8').catch(() => '');
    const first = await until(beat, { what: 'a beat' });
    await until(async () => (await beat()) !== first, { what: 'another beat' });
    await bench.seen[0]?.answer(anAnswer(0));
    await until(async () => (await beat()) === '', { what: 'the beat to be gone' });
  });

  it('cuts output that is too long, with a line that says so, and tells the client', async () => {
    const chunk = Buffer.alloc(16 * 1024 * 1024, 'x');
    await using bench = await openSpoolBench({
      async script({ output, answer }) {
        for (let count = 0; count < 6; count += 1) await output({ stream: 'out', bytes: chunk });
        await output({ stream: 'err', bytes: bytes('whole') });
        await answer(anAnswer(0));
      },
    });
    ask(bench, `${SENDER}.1`);
    assert.match(await answerTo(bench, `${SENDER}.1`), /note\.1=the hooks' output \(out\) was cut/);
    const out = await readFile(bench.path('spool/out', `${SENDER}.1.out`));
    assert.ok(out.length < LARGEST_OUTPUT + 200);
    assert.match(out.subarray(LARGEST_OUTPUT).toString(), /^\nsidehook: the output of .* is cut here/);
    assert.equal(await readFile(bench.path('spool/out', `${SENDER}.1.err`), 'utf8'), 'whole');
  });
});

describe('the spool, when it is started again', () => {
  it('delivers again what was taken and not answered', async () => {
    await using bench = await openSpoolBench({ script: never });
    ask(bench, `${SENDER}.1`);
    await untilAsked(bench, 'pre');
    await bench.stop();
    bench.setScript(({ answer }) => answer(anAnswer(0, { notes: ['late'] })));
    await bench.start();
    assert.match(await answerTo(bench, `${SENDER}.1`), /note\.1=late/);
  });

  it('does not deliver again what has its answer', async () => {
    await using bench = await openSpoolBench();
    ask(bench, `${SENDER}.1`);
    await answerTo(bench, `${SENDER}.1`);
    await bench.stop();
    // left by a crash between the answer and this
    writeFileSync(bench.path('spool/in', `${SENDER}.1.got`), 'version=1\noperation=backup\nstate=pre\nend=1\n');
    await bench.start();
    await until(async () => (await readdir(bench.path('spool/in'))).length === 0, { what: 'it to be removed' });
    assert.equal(bench.seen.length, 1);
  });

  it('writes on in the same files for a request that is reopened, and delivers it no second time', async () => {
    await using bench = await openSpoolBench({
      script: ({ output }) => output({ stream: 'err', bytes: bytes('one,') }),
    });
    await using _client = await arrive(bench);
    ask(bench, `${SENDER}.1`);
    const { request, sender } = await untilAsked(bench, 'pre');
    const path = bench.path('spool/out', `${SENDER}.1.err`);
    await until(() => readFile(path, 'utf8').catch(() => ''), { what: 'output' });
    await bench.stop();
    let again: Delivery | undefined;
    await bench.start((spool) => {
      again = spool.reopen(request, sender.ref);
    });
    ask(bench, 'sender-other.1');
    await until(() => bench.seen.length === 2, { what: 'another request' });
    await again?.output({ stream: 'err', bytes: bytes('two') });
    await again?.answer(anAnswer(0));
    assert.equal(await readFile(path, 'utf8'), 'one,two');
    assert.equal(await answerTo(bench, `${SENDER}.1`), 'exit=0\nend=1\n');
    assert.equal(bench.seen.length, 2);
  });

  it('knows its own leases and requests from those of others', async () => {
    await using bench = await openSpoolBench();
    ask(bench, `${SENDER}.1`);
    await answerTo(bench, `${SENDER}.1`);
    const { request, sender } = bench.seen[0] as Delivery;
    assert.equal(bench.spool().lease('socket/default/lease/x'), undefined);
    assert.equal(bench.spool().lease(`spool/other/${SENDER}`), undefined);
    assert.equal(bench.spool().reopen(request, 'socket/default/lease/x'), undefined);
    assert.equal(bench.spool().reopen({ ...request, id: '../x' }, sender.ref), undefined);
    assert.equal(bench.spool().lease(sender.ref)?.ref, sender.ref);
  });
});

describe('the spool, when its directory is not left alone', () => {
  it('makes it anew when it was removed, while requests are open', async () => {
    await using bench = await openSpoolBench({ script: never });
    ask(bench, `${SENDER}.1`);
    const { answer } = await untilAsked(bench, 'pre');
    await rm(bench.path('spool'), { recursive: true });
    await unlink(bench.path('sidehook'));
    await until(() => stat(bench.path('spool/in')).catch(() => false), { what: 'a new spool' });
    await until(() => stat(bench.path('sidehook')).catch(() => false), { what: 'a new client' });
    await answer(anAnswer(0));
    await answerTo(bench, `${SENDER}.1`);
    bench.setScript(({ answer: say }) => say(anAnswer(0)));
    ask(bench, 'sender-next.1');
    await answerTo(bench, 'sender-next.1');
  });

  it('puts aside what lies in the way at its start', async () => {
    await using bench = await openSpoolBench({ down: true });
    mkdirSync(bench.path('sidehook'));
    await mkdir(bench.path('sidehook/full'));
    writeFileSync(bench.path('spool'), 'not a directory');
    await bench.start();
    assert.ok((await stat(bench.path('sidehook'))).isFile());
    ask(bench, `${SENDER}.1`);
    await answerTo(bench, `${SENDER}.1`);
  });

  it('answers late, but answers, when the disk was full', async (test) => {
    await using bench = await openSpoolBench({ down: true });
    const mount = () => run('mount', ['-t', 'tmpfs', '-o', 'size=96k', 'tmpfs', bench.dir]);
    if (
      !(await mount().then(
        () => true,
        () => false,
      ))
    )
      return test.skip('cannot mount a small file system here');
    try {
      bench.setScript(async ({ output, answer }) => {
        await output({ stream: 'out', bytes: Buffer.alloc(1024 * 1024, 'x') });
        await answer(anAnswer(3));
      });
      await bench.start();
      ask(bench, `${SENDER}.1`);
      await until(() => bench.lines.find(({ message }) => message === 'an answer cannot be written yet'), {
        what: 'trouble',
      });
      await rm(bench.path('spool/out', `${SENDER}.1.out`));
      assert.match(await answerTo(bench, `${SENDER}.1`), /^exit=3\n(?:.*\n)*.*output \(out\) was cut/);
      bench.setScript(({ answer }) => answer(anAnswer(0)));
      ask(bench, 'sender-next.1');
      await answerTo(bench, 'sender-next.1');
      await bench.stop();
    } finally {
      await bench.stop();
      await run('umount', [bench.dir]);
    }
  });
});
