import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import fc from 'fast-check';
import { OperationalError } from '../../src/core/errors.ts';
import { type LogOptions, openLog } from '../../src/log.ts';

/** A log into memory. */
function aLog(options: Partial<LogOptions> & { isTTY?: boolean } = {}) {
  let written = '';
  const stream = new Writable({
    write(bytes: Buffer, _encoding, done) {
      written += bytes.toString();
      done();
    },
  });
  const log = openLog({
    level: 'info',
    format: 'json',
    secrets: [],
    stream: Object.assign(stream, { isTTY: options.isTTY ?? false }),
    ...options,
  });
  const lines = async () => {
    await log.flush();
    return written.split('\n').slice(0, -1);
  };
  return { log, lines, events: async () => (await lines()).map((line) => JSON.parse(line) as Record<string, unknown>) };
}

/** Runs this module with a log `log` on its own standard error. */
function aProcess(code: string) {
  const script = `
    import { openLog } from ${JSON.stringify(new URL('../../src/log.ts', import.meta.url).href)};
    const log = openLog({ level: 'info', format: 'auto', secrets: [], env: process.env });
    ${code}`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] });
}

describe('the log as JSON', () => {
  it('has one line an event, with time, level, message and fields', async () => {
    const { log, events } = aLog();
    log.info('started', { hooks: 3, nested: { a: [1, null] } });
    log.child({ run: 'r1' }).child({ job: 'j' }).warn('odd', { run: 'r2' });
    log.debug('unseen');
    const [started, odd, ...rest] = await events();
    assert.match(String(started?.time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.deepEqual(
      { ...started, time: '' },
      { time: '', level: 'info', message: 'started', hooks: 3, nested: { a: [1, null] } },
    );
    assert.deepEqual({ ...odd, time: '' }, { time: '', level: 'warn', message: 'odd', run: 'r2', job: 'j' });
    assert.deepEqual(rest, []);
  });

  it('names the hook of each line of output', async () => {
    const { log, events } = aLog();
    log.hookOutput('20-dump', 'err', 'dumping', { run: 'r1' });
    const [event] = await events();
    assert.deepEqual(
      { ...event, time: '' },
      { time: '', level: 'info', message: 'hook output', hook: '20-dump', stream: 'err', line: 'dumping', run: 'r1' },
    );
  });

  it('lets no field pass for the time, the level, the message or the cause', async () => {
    const { log, events } = aLog();
    log.info('started', { message: 'forged', level: 'error', time: 'never', stack: 'x', cause: 'y' });
    const [event] = await events();
    assert.deepEqual([event?.message, event?.level], ['started', 'info']);
    assert.deepEqual([event?.message_, event?.level_, event?.time_], ['forged', 'error', 'never']);
  });

  it('tells an error with what caused it, and a stack only of what nobody expected', async () => {
    const { log, events } = aLog();
    const cause = Object.assign(new Error('connect ENOENT'), { code: 'ENOENT' });
    log.error('gone', { error: new OperationalError('engine-unavailable', 'ask the engine: gone', { cause }) });
    log.error('bug', { error: new TypeError('x is no function') });
    const [gone, bug] = await events();
    assert.deepEqual(gone?.error, {
      code: 'engine-unavailable',
      message: 'ask the engine: gone',
      cause: { code: 'ENOENT', message: 'connect ENOENT' },
    });
    assert.match(JSON.stringify(bug?.error), /"name":"TypeError".*"stack":"TypeError: x is no function/);
  });

  it('takes anything for a field', async () => {
    const circle: Record<string, unknown> = { big: 10n, bytes: Buffer.from('ab'), date: new Date(0), none: undefined };
    circle.self = circle;
    circle.map = new Map([['a', 1]]);
    Object.defineProperty(circle, 'trap', { enumerable: true, get: () => assert.fail('trap') });
    const { log, events } = aLog();
    log.info('odd', { circle, list: Array.from({ length: 1000 }, () => 1), nan: Number.NaN });
    const [event] = await events();
    assert.deepEqual(event?.circle, {
      big: '10',
      bytes: '[2 bytes]',
      date: '1970-01-01T00:00:00.000Z',
      self: '[circular]',
      map: [['a', 1]],
      trap: '[unreadable]',
    });
    assert.equal((event?.list as unknown[] | undefined)?.length, 101);
  });

  it('cuts what is too long, and says so', async () => {
    const { log, events } = aLog();
    log.hookOutput('noisy', 'out', 'x'.repeat(100_000), {});
    log.info('much', Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`f${index}`, 'y'.repeat(5_000)])));
    const [noisy, much] = await events();
    assert.match(String(noisy?.line), /^x{8192}… \(91808 characters cut\)$/);
    assert.deepEqual(Object.keys(much ?? {}), ['time', 'level', 'message', 'cut']);
  });
});

describe('the log for people', () => {
  it('is what a terminal gets, and what anyone may ask for', async () => {
    const pretty = aLog({ format: 'auto', isTTY: true });
    pretty.log.warn('odd', { a: 1, b: 'two words', error: new Error('x') });
    const [line] = await pretty.lines();
    assert.match(
      stripVTControlCharacters(line ?? ''),
      /^\d\d:\d\d:\d\d warn {2}odd a=1 b="two words" error=\{"message":"x"/,
    );
    const plain = aLog({ format: 'pretty' });
    plain.log.hookOutput('20-dump', 'out', 'dumping', {});
    plain.log.hookOutput('20-dump', 'err', 'oops', {});
    assert.deepEqual(
      (await plain.lines()).map((text) => text.slice(9)),
      ['20-dump| dumping', '20-dump! oops'],
    );
  });
});

describe('what a hook prints into the log', () => {
  const anything = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('a\nb', '\u001b[2J', '\r{"level":"error"}', '\u009b1m', '\u202e'),
  );

  for (const format of ['json', 'pretty'] as const) {
    it(`forges no line and drives no terminal (${format})`, async () => {
      await fc.assert(
        fc.asyncProperty(anything, anything, async (hook, line) => {
          const { log, lines } = aLog({ format });
          log.hookOutput(hook, 'out', line, { [hook]: line });
          log.info(line, { [hook]: line });
          const written = await lines();
          assert.equal(written.length, 2);
          for (const one of written) {
            assert.doesNotMatch(one.replaceAll('\t', ''), /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u);
            if (format === 'json') JSON.parse(one);
          }
        }),
      );
    });
  }

  it('tells no secret, wherever it stands and however it is written', async () => {
    const env = {
      DB_PASSWORD: 'hunter2+/%',
      API_TOKEN: 'abc',
      PRIVATE_KEY: '-----BEGIN\nMIIEvQIBADAN\n-----END',
      HOME: '/root',
    };
    for (const format of ['json', 'pretty'] as const) {
      const { log, lines } = aLog({ format, env, secrets: ['s3cret"\\x'] });
      log.info('with hunter2+/% inside', {
        'hunter2+/%': ['s3cret"\\x'],
        url: 'http://u:hunter2%2B%2F%25@h/',
        error: new Error('hunter2+/%'),
      });
      log.hookOutput('hunter2+/%', 'out', 'MIIEvQIBADAN', { home: '/root', short: 'abc' });
      const written = (await lines()).join('\n');
      for (const secret of ['hunter2', 's3cret', 'MIIEvQ'])
        assert.ok(!written.includes(secret), `${secret} in ${written}`);
      assert.ok(written.includes('***'));
      if (format === 'json') assert.ok(written.includes('/root') && written.includes('abc'), 'what is no secret stays');
    }
  });

  it('tells no secret that is cut in half', async () => {
    const { log, lines } = aLog({ secrets: ['hunter2'] });
    log.info(`${'x'.repeat(8 * 1024 - 4)}hunter2`);
    assert.doesNotMatch((await lines()).join(), /hunt/);
  });
});

describe('standard error', () => {
  it('is where the log goes, as JSON when it is no terminal', async () => {
    const child = aProcess(`log.info('here'); await log.flush(); process.exit();`);
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
    assert.equal(out, '');
    assert.equal((JSON.parse(err) as { message: string }).message, 'here');
  });

  it('may be closed under it: the process lives on', async () => {
    const child = aProcess(`
      process.on('SIGUSR2', async () => {
        for (let count = 0; count < 100; count++) { log.info('into the void'); await new Promise(setImmediate); }
        await log.flush();
        process.exitCode = 42;
        clearInterval(alive);
      });
      const alive = setInterval(() => {}, 1000);
      process.stdout.write('ready');`);
    await once(child.stdout, 'data');
    child.stderr.destroy();
    await once(child.stderr, 'close');
    child.kill('SIGUSR2');
    assert.deepEqual(await once(child, 'exit'), [42, null]);
  });

  it('may be read by nobody: lines are lost and counted, memory is not, and nothing waits', async () => {
    const child = aProcess(`
      const line = 'x'.repeat(8000);
      for (let count = 0; count < 5000; count++) log.hookOutput('noisy', 'out', line, {});
      process.stdout.write(String(process.stderr.writableLength) + '\\n');
      process.stderr.once('drain', async () => { log.info('last'); await log.flush(); process.exit(); });`);
    const [length] = (await once(child.stdout, 'data')) as [Buffer];
    assert.ok(Number(length) < 2 * 1024 * 1024, String(length));
    const lines = (await text(child.stderr)).trim().split('\n');
    const events = lines.map((line) => JSON.parse(line) as { message: string; lines?: number });
    const [lost, last] = events.slice(-2);
    assert.equal(last?.message, 'last');
    assert.equal((lost?.lines ?? 0) + events.length - 2, 5000);
  });
});
