import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { lstat, readdir, readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { anAnswer, openSpoolBench, type SpoolBench } from '../../support/spool.ts';
import { until } from '../../support/until.ts';

const SECRET = "the operator's own words";

let outside = '';
let secret = '';

beforeEach(() => {
  outside = mkdtempSync(join(tmpdir(), 'outside-'));
  secret = join(outside, 'secret');
  writeFileSync(secret, SECRET, { mode: 0o600 });
});

afterEach(() => {
  assert.equal(readFileSync(secret, 'utf8'), SECRET);
  rmSync(outside, { recursive: true });
});

function ask(bench: SpoolBench, id: string): void {
  const path = bench.path('spool/in', id);
  writeFileSync(`${path}.tmp`, 'version=1\noperation=backup\nstate=pre\nend=1\n');
  renameSync(`${path}.tmp`, `${path}.req`);
}

function answerTo(bench: SpoolBench, id: string): Promise<string> {
  const path = bench.path('spool/out', `${id}.ans`);
  return until(() => readFile(path, 'utf8').catch(() => undefined), { what: `an answer to ${id}`, everyMs: 10 });
}

/** The daemon still answers an honest client. */
async function stillServes(bench: SpoolBench): Promise<void> {
  const id = `honest-one-${bench.seen.length}.1`;
  ask(bench, id);
  assert.match(await answerTo(bench, id), /^exit=0\n/);
}

const makers: Readonly<Record<string, (path: string) => void>> = {
  'a symbolic link to a file outside': (path) => symlinkSync(secret, path),
  'a symbolic link to a device that never ends': (path) => symlinkSync('/dev/zero', path),
  'a symbolic link to nothing': (path) => symlinkSync('/nonexistent', path),
  'a symbolic link to itself': (path) => symlinkSync(path, path),
  'a hard link to a file outside': (path) => linkSync(secret, path),
  'a FIFO that nobody writes': (path) => execFileSync('mkfifo', [path]),
  'a directory': (path) => mkdirSync(path),
  'a directory that is full': (path) => mkdirSync(join(path, 'x', 'y'), { recursive: true }),
};

describe('a hostile client', () => {
  for (const [what, make] of Object.entries(makers)) {
    it(`is answered 64 for a request that is ${what}`, async () => {
      await using bench = await openSpoolBench();
      make(bench.path('spool/in/hostile-one.1.req'));
      const answer = await answerTo(bench, 'hostile-one.1');
      assert.match(answer, /^exit=64\nmessage=request: expected a regular file.*\nend=1\n$/);
      assert.ok(!answer.includes(SECRET));
      await stillServes(bench);
      await bench.stop();
      await bench.start();
      await stillServes(bench);
      assert.equal(bench.lines.filter(({ message }) => message === 'request refused').length, 1);
    });
  }

  it('is passed over when its names are none', async () => {
    await using bench = await openSpoolBench();
    for (const name of ['.req', 'x.1.req', '....1.req', '-rf.req', 'a\nb.1.req', '%2e%2e.1.req', 'x'.repeat(250)]) {
      writeFileSync(bench.path('spool/in', name), 'version=1\noperation=backup\nstate=pre\nend=1\n');
    }
    await stillServes(bench);
    assert.equal(bench.seen.length, 1);
    assert.deepEqual(bench.lines, []);
  });

  it('cannot make us ring, or follow, what is no FIFO of its own', async () => {
    await using bench = await openSpoolBench();
    symlinkSync(secret, bench.path('spool/in/hostile-one.bell'));
    symlinkSync(secret, bench.path('spool/in/hostile-one.life'));
    ask(bench, 'hostile-one.1');
    await answerTo(bench, 'hostile-one.1');
    await bench.seen[0]?.sender.lost(AbortSignal.timeout(5000));
    execFileSync('mkfifo', [bench.path('spool/in/hostile-two.bell')]);
    ask(bench, 'hostile-two.1'); // nobody reads it: an open that waits would wait for ever
    await answerTo(bench, 'hostile-two.1');
  });

  it('cannot have a client that shares our files write, or read, outside by what it plants among them', async () => {
    await using bench = await openSpoolBench({
      async script({ output, answer }) {
        await output({ stream: 'out', bytes: Buffer.from('out') });
        await output({ stream: 'err', bytes: Buffer.from('err') });
        await answer(anAnswer(0));
      },
    });
    symlinkSync(secret, bench.path('spool/out/hostile-one.1.out'));
    linkSync(secret, bench.path('spool/out/hostile-one.1.err'));
    symlinkSync(secret, bench.path('spool/out/hostile-one.1.ans'));
    mkdirSync(bench.path('spool/out/hostile-two.1.ans/full'), { recursive: true });
    ask(bench, 'hostile-one.1');
    ask(bench, 'hostile-two.1');
    const read = (name: string) => readFile(bench.path('spool/out', name), 'utf8').catch(() => '');
    await until(async () => (await read('hostile-one.1.ans')).startsWith('exit=0'), { what: 'the answer' });
    await until(async () => (await read('hostile-two.1.ans')).startsWith('exit=0'), { what: 'the other answer' });
    assert.equal(await read('hostile-one.1.out'), 'out');
    assert.equal(await read('hostile-one.1.err'), 'err');
  });

  it('cannot lead us out by a link in the place of our directories', async () => {
    await using bench = await openSpoolBench();
    for (const names of [['spool/in', 'spool/out'], ['spool']]) {
      for (const name of names) {
        renameSync(bench.path(name), join(outside, name.replace('/', '-')));
        symlinkSync(outside, bench.path(name));
      }
      const name = names[0] ?? '';
      await until(async () => !(await isLink(bench.path(name))), { what: `${name} to be made anew` });
      await stillServes(bench);
    }
    assert.deepEqual((await readdir(outside)).toSorted(compare), ['secret', 'spool', 'spool-in', 'spool-out']);
  });

  it('cannot win a race of swaps for a few seconds', async () => {
    await using bench = await openSpoolBench({
      async script({ output, answer }) {
        await output({ stream: 'out', bytes: Buffer.from('out') });
        await answer(anAnswer(0));
      },
    });
    const trap = join(outside, 'trap');
    mkdirSync(trap);
    for (const dir of ['in', 'out', 'spool']) mkdirSync(join(trap, dir));
    const before = [(await stat(outside)).mode, (await stat(trap)).mode, (await stat(secret)).mode];
    const racer = spawn('sh', ['-c', RACE, 'race', bench.dir, trap, secret], { stdio: 'ignore' });
    await once(racer, 'exit');
    assert.deepEqual([(await stat(outside)).mode, (await stat(trap)).mode, (await stat(secret)).mode], before);
    for (const dir of ['in', 'out', 'spool']) assert.deepEqual(await readdir(join(trap, dir)), [], dir);
    assert.deepEqual((await readdir(trap)).toSorted(compare), ['in', 'out', 'spool']);
    await until(async () => !(await isLink(bench.path('spool/in'))), { what: 'the spool to be made anew' });
    await stillServes(bench);
  });

  it('cannot make us remember, or log, without bound', async () => {
    await using bench = await openSpoolBench();
    for (let count = 0; count < 1500; count += 1) {
      writeFileSync(bench.path('spool/in', `hostile-${count}.1.req`), 'half');
    }
    await until(async () => (await readdir(bench.path('spool/in'))).length === 0, {
      what: 'all to be refused',
      deadlineMs: 60_000,
    });
    await stillServes(bench);
    assert.ok(bench.lines.length <= 1000, `${bench.lines.length} lines`);
  });
});

const compare = (one: string, other: string) => (one < other ? -1 : 1);

async function isLink(path: string): Promise<boolean> {
  return await lstat(path).then(
    (found) => found.isSymbolicLink(),
    () => true,
  );
}

/** Swaps requests, our files and our directories for links, as fast as a shell can. */
const RACE = `
dir=$1 trap=$2 secret=$3 count=0
end=$(($(date +%s) + 3))
while [ "$(date +%s)" -lt "$end" ]; do
  count=$((count + 1))
  id=hostile-$count.1
  printf 'version=1\\noperation=backup\\nstate=pre\\nend=1\\n' >"$dir/spool/in/$id.tmp"
  mv "$dir/spool/in/$id.tmp" "$dir/spool/in/$id.req"
  ln -sfn "$secret" "$dir/spool/in/$id.got"
  ln -sfn "$secret" "$dir/spool/out/$id.out"
  ln -sfn "$secret" "$dir/spool/out/$id.ans"
  ln -sfn "$secret" "$dir/sidehook"
  case $((count % 3)) in
    0) name=spool/in ;;
    1) name=spool/out ;;
    2) name=spool ;;
  esac
  mv -T "$dir/$name" "$dir/aside" && ln -s "$trap" "$dir/$name"
  rm "$dir/$name"
  mv -T "$dir/aside" "$dir/$name"
done 2>/dev/null
ln -sfn "$trap/in" "$dir/spool/in"
exit 0
`;
