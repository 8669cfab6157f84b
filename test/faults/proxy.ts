/** A way to the engine that can be disturbed: it answers 500, says nothing, or breaks off in the middle of an answer. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type Mood = 'well' | 'answers 500' | 'hangs' | 'breaks off';

export type MoodyProxy = AsyncDisposable & {
  readonly host: string;
  /** What comes from now on is treated so. Back to `well`, all that was treated otherwise is cut. */
  setMood(mood: Mood): void;
};

const REFUSAL = 'HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n';
/** In the middle of the first line of an answer, or of its head. */
const BREAK_AFTER_BYTES = 40;

/** Opens it in front of an engine's socket. */
export async function openMoodyProxy(engineSocket: string): Promise<MoodyProxy> {
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-proxy-'));
  const path = join(dir, 'docker.sock');
  const all = new Set<Socket>();
  const disturbed = new Set<Socket>();
  let mood: Mood = 'well';
  const keep = (socket: Socket): void => {
    all.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      all.delete(socket);
      disturbed.delete(socket);
    });
  };
  const server = createServer((near) => {
    keep(near);
    if (mood !== 'well') disturbed.add(near);
    if (mood === 'hangs') return void near.resume();
    if (mood === 'answers 500') return void near.once('data', () => near.end(REFUSAL));
    const far = createConnection(engineSocket);
    keep(far);
    far.on('close', () => near.destroy());
    near.on('close', () => far.destroy());
    near.pipe(far);
    if (mood === 'well') return void far.pipe(near);
    far.once('data', (bytes: Buffer) => near.write(bytes.subarray(0, BREAK_AFTER_BYTES), () => near.destroy()));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    host: `unix://${path}`,
    setMood(next) {
      mood = next;
      for (const socket of next === 'well' ? disturbed : []) socket.destroy();
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of all) socket.destroy();
      await closed;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
