import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { lstat, mkdir, mkdtempDisposable, readFile, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getuid, umask } from 'node:process';
import { describe, it } from 'node:test';
import { listenOn } from '../../../src/intake/socket-listen.ts';

describe('making a socket where others may write', () => {
  it('gives it the mode from its first moment, and leaves our own umask as it was', async () => {
    await using dir = await aDir();
    const before = umask();
    for (const mode of [0o660, 0o600]) {
      const path = join(dir.path, `${mode}.sock`);
      await using server = createServer();
      await listenOn(server, { path, mode });
      const stats = await lstat(path);
      assert.ok(stats.isSocket());
      assert.equal(stats.mode & 0o777, mode);
    }
    assert.equal(umask(), before);
  });

  it('gives it to its owner', { skip: getuid?.() !== 0 && 'only root may' }, async () => {
    await using dir = await aDir();
    const path = join(dir.path, 's.sock');
    await using server = createServer();
    await listenOn(server, { path, mode: 0o660, owner: { gid: 4711 } });
    const { uid, gid } = await lstat(path);
    assert.deepEqual([uid, gid], [0, 4711]);
  });

  it('takes away the socket of a dead one, which kill -9 leaves', async () => {
    await using dir = await aDir();
    const path = join(dir.path, 's.sock');
    const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    const child = execFile(process.execPath, ['-e', code], () => undefined);
    await once(child, 'exit');
    assert.ok((await lstat(path)).isSocket());
    await using server = createServer();
    await listenOn(server, { path, mode: 0o660 });
    assert.ok(server.listening);
  });

  it('leaves alone a socket on which somebody answers', async () => {
    await using dir = await aDir();
    const path = join(dir.path, 's.sock');
    await using first = createServer((connection) => connection.on('error', () => undefined).end('first'));
    await listenOn(first, { path, mode: 0o660 });
    await using second = createServer();
    const expected = {
      code: 'configuration',
      message: `listen on ${path}: another sidehook, or somebody else, listens there already`,
    };
    await assert.rejects(listenOn(second, { path, mode: 0o660 }), expected);
    assert.ok((await lstat(path)).isSocket());
  });

  it('takes away nothing that is no socket, and follows no link', async () => {
    await using dir = await aDir();
    const file = join(dir.path, 'file');
    await writeFile(file, 'precious');
    await mkdir(join(dir.path, 'folder'));
    await symlink(file, join(dir.path, 'link'));
    await symlink(join(dir.path, 'nothing'), join(dir.path, 'dangling'));
    for (const name of ['file', 'folder', 'link', 'dangling']) {
      await using server = createServer();
      const place = { path: join(dir.path, name), mode: 0o660, owner: { gid: 4711 } };
      await assert.rejects(
        listenOn(server, place),
        { code: 'configuration', message: /something else than a socket/ },
        name,
      );
    }
    assert.equal(await readFile(file, 'utf8'), 'precious');
    assert.notEqual((await lstat(file)).gid, 4711);
    await assert.rejects(lstat(join(dir.path, 'nothing')), { code: 'ENOENT' });
  });

  it('says why it cannot listen', async () => {
    await using dir = await aDir();
    for (const path of [join(dir.path, 'none', 's.sock'), join(dir.path, 'x'.repeat(200))]) {
      await using server = createServer();
      await assert.rejects(listenOn(server, { path, mode: 0o660 }), {
        code: 'configuration',
        message: /^listen on .*: listen E/,
      });
    }
  });
});

function aDir() {
  return mkdtempDisposable(join(tmpdir(), 'listen-'));
}
