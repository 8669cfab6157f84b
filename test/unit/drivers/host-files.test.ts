import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, mkdtempDisposable, rename, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openHost } from '../../../src/drivers/host.ts';

const isRoot = process.getuid?.() === 0;

/** A hooks.d with these executables. */
async function aDirectory(files: Readonly<Record<string, string | Uint8Array>> = {}) {
  const dir = await mkdtempDisposable(join(tmpdir(), 'hooks-'));
  await chmod(dir.path, 0o755);
  const add = async (name: string | Buffer, content: string | Uint8Array = '#!/bin/sh\n', mode = 0o755) => {
    const path = typeof name === 'string' ? join(dir.path, name) : Buffer.concat([Buffer.from(`${dir.path}/`), name]);
    await writeFile(path, content);
    await chmod(path, mode);
  };
  for (const [name, content] of Object.entries(files)) await add(name, content);
  const list = (sharedDir?: string) =>
    openHost({ hooksDir: dir.path, env: {}, ...(sharedDir && { sharedDir }) }).list();
  const names = async () => (await list()).files.map((file) => file.name);
  return { path: dir.path, add, list, names, [Symbol.asyncDispose]: () => dir.remove() };
}

describe('hooks.d', () => {
  it('is listed in byte order, dots and capitals included', async () => {
    await using hooks = await aDirectory();
    const names = ['10-a', '9-b', 'B', 'a', 'a.sh', 'é', 'z', '𝒛', '\uff5e'];
    for (const name of names.toReversed()) await hooks.add(name);
    assert.deepEqual(
      await hooks.names(),
      names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    );
    assert.deepEqual((await hooks.names()).slice(-2), ['\uff5e', '𝒛'], 'by bytes, not by UTF-16');
  });

  it('may be absent or empty, and is read anew each time', async () => {
    await using hooks = await aDirectory();
    assert.deepEqual(await hooks.list(), { files: [], passedOver: [] });
    await hooks.add('10-new');
    assert.deepEqual(await hooks.names(), ['10-new']);
    const nowhere = openHost({ hooksDir: join(hooks.path, 'none'), env: {} });
    assert.deepEqual(await nowhere.list(), { files: [], passedOver: [] });
  });

  it('passes over what is no hook, each with its reason', async () => {
    await using hooks = await aDirectory({ '10-ok': '#!/bin/sh\n' });
    const endings = [
      'a~',
      'a.bak',
      'a.swp',
      'a.orig',
      'a.rej',
      'a.sig',
      'a.sample',
      'a.dpkg-new',
      'a.dpkg-old',
      'a.rpmsave',
    ];
    for (const name of endings) await hooks.add(name);
    await hooks.add('.hidden');
    await hooks.add('plain', '#!/bin/sh\n', 0o644);
    await hooks.add('two\nlines');
    await hooks.add(Buffer.from([0x61, 0xff]));
    await mkdir(join(hooks.path, 'sub'));
    await symlink('nowhere', join(hooks.path, 'dangling'));
    await symlink('loop', join(hooks.path, 'loop'));
    execFileSync('mkfifo', ['-m', '755', join(hooks.path, 'fifo')]);

    const { files, passedOver } = await hooks.list();
    assert.deepEqual(
      files.map(({ name }) => name),
      ['10-ok'],
    );
    assert.deepEqual(
      new Set(passedOver),
      new Set([
        '.hidden: passed over: hidden',
        'a.bak: passed over: ends in .bak',
        'a.dpkg-new: passed over: ends in .dpkg-new',
        'a.dpkg-old: passed over: ends in .dpkg-old',
        'a.orig: passed over: ends in .orig',
        'a.rej: passed over: ends in .rej',
        'a.rpmsave: passed over: ends in .rpmsave',
        'a.sample: passed over: ends in .sample',
        'a.sig: passed over: ends in .sig',
        'a.swp: passed over: ends in .swp',
        'a~: passed over: ends in ~',
        'a\ufffd: passed over: its name is no UTF-8',
        'dangling: passed over: a symlink that leads nowhere, or it was just removed',
        'fifo: passed over: no regular file',
        'loop: passed over: a symlink that leads to itself',
        'plain: passed over: not executable',
        'sub: passed over: a directory',
        'two\\nlines: passed over: its name has control characters',
      ]),
    );
  });

  it('follows symlinks as a ConfigMap has them, through an update', async () => {
    await using hooks = await aDirectory();
    for (const [version, text] of [
      ['..2026_01_01_00_00_00.1', 'one'],
      ['..2026_01_02_00_00_00.2', 'two'],
    ] as const) {
      await mkdir(join(hooks.path, version));
      await hooks.add(`${version}/10-dump`, `#!/bin/sh\n# ${text}\n`);
    }
    await symlink('..2026_01_01_00_00_00.1', join(hooks.path, '..data'));
    await symlink('..data/10-dump', join(hooks.path, '10-dump'));
    assert.match((await hooks.list()).files[0]?.text ?? '', /one/);
    await symlink('..2026_01_02_00_00_00.2', join(hooks.path, '..data_tmp'));
    await rename(join(hooks.path, '..data_tmp'), join(hooks.path, '..data'));
    const { files, passedOver } = await hooks.list();
    assert.match(files[0]?.text ?? '', /two/);
    assert.deepEqual([files.length, passedOver], [1, []]);
  });

  it('has the text of a script, and a head for its header', async () => {
    const script = `#!/bin/sh\n${Array.from({ length: 30 }, (_, line) => `# ${line}\n`).join('')}`;
    const large = `#!/bin/sh\n# sidehook: timeout=1m\n${'x'.repeat(1024 * 1024)}`;
    const latin1 = Buffer.from('#!/bin/sh\n# Gr\xf6\xdfe\n# sidehook: timeout=1m\n', 'latin1');
    const bundle = Buffer.concat([Buffer.from('#!/bin/sh\n# sidehook: timeout=1m\n'), Buffer.alloc(100)]);
    await using hooks = await aDirectory({
      '1-script': script,
      '2-large': large,
      '3-latin1': latin1,
      '4-bundle': bundle,
    });
    await hooks.add('5-elf', Buffer.from('\x7fELF\0\0# sidehook: timeout=1m\n'));
    const { files } = await hooks.list();
    const [first, second, third, fourth, fifth] = files;
    assert.equal(first?.text, script);
    assert.equal(first?.head.split('\n').length, 20);
    for (const file of [second, third, fourth]) {
      assert.equal(file?.text, undefined, file?.name);
      assert.match(file?.head ?? '', /^# sidehook: timeout=1m$/m);
    }
    assert.ok((second?.head.length ?? 0) <= 16 * 1024);
    assert.deepEqual([fifth?.head, fifth?.text], ['', undefined]);
  });
});

describe('hooks.d that cannot be trusted', () => {
  it('is refused when others may write it, or a hook in it; a group may', async () => {
    await using hooks = await aDirectory({ '10-ok': '' });
    await chmod(join(hooks.path, '10-ok'), 0o775);
    assert.deepEqual(await hooks.names(), ['10-ok']);
    await chmod(join(hooks.path, '10-ok'), 0o757);
    await assert.rejects(hooks.list(), {
      name: 'OperationalError',
      code: 'refused',
      message: /10-ok: writable by others/,
    });
    await chmod(join(hooks.path, '10-ok'), 0o755);
    await chmod(hooks.path, 0o1777);
    await assert.rejects(hooks.list(), { code: 'refused', message: /writable by others/ });
  });

  it('is fine, whatever its modes, on a mount that is read-only', { skip: !isRoot }, async () => {
    await using hooks = await aDirectory({ '10-ok': '' });
    await chmod(join(hooks.path, '10-ok'), 0o777);
    await chmod(hooks.path, 0o777);
    const code = `import { openHost } from ${JSON.stringify(new URL('../../../src/drivers/host.ts', import.meta.url).href)};
      const { files } = await openHost({ hooksDir: process.argv[1], env: {} }).list();
      process.stdout.write(files.map(({ name }) => name).join());`;
    const script =
      'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" --input-type=module -e "$3" "$1"';
    const out = execFileSync('unshare', ['-m', 'sh', '-c', script, 'sh', hooks.path, process.execPath, code]);
    assert.equal(out.toString(), '10-ok');
  });

  it('is a configuration error when a hook leads to where clients can write', async () => {
    await using hooks = await aDirectory();
    await using shared = await aDirectory({ evil: '#!/bin/sh\n' });
    await symlink(join(shared.path, 'evil'), join(hooks.path, '10-link'));
    await assert.rejects(hooks.list(shared.path), { code: 'configuration', message: /every client can write/ });
    assert.deepEqual(await hooks.names(), ['10-link']);
  });

  it('is a configuration error when it is no directory, or cannot be read', async () => {
    await using hooks = await aDirectory({ '10-ok': '' });
    const host = openHost({ hooksDir: join(hooks.path, '10-ok'), env: {} });
    await assert.rejects(host.list(), { code: 'configuration', message: /not a directory/ });
  });
});
