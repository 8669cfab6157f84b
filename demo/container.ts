/** Holds: where an engine answers, a container is stopped while its file is read, and started again. */
import { mkdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import Docker from 'dockerode';
import { execa } from 'execa';
import { isThere, openSidecar, type Stage } from './stage.ts';

const PATIENCE_MS = 10_000;
const BUSYBOXES = ['/bin/busybox', '/usr/bin/busybox', '/usr/lib/initcpio/busybox'];

/** Two words make a record, and some time passes between them. Told to stop, it finishes the record in hand. */
const WRITER = `
trap 'told=1' TERM
n=0
until [ -n "$told" ]; do
  n=$((n + 1))
  printf 'begin-%s ' $n >>/data/records
  sleep 0.05
  printf 'end-%s\\n' $n >>/data/records
done`;

/** A container that writes all the time is stopped before tar reads, and started after. Says so if there is no engine. */
export async function showContainer(stage: Stage): Promise<void> {
  stage.title('Holds: a container stands still while it is backed up');
  const host = process.env.DOCKER_HOST || 'unix:///var/run/docker.sock';
  const docker = await findEngine(host);
  if (docker === undefined) {
    stage.say(`No container engine answers at ${host}, so this part is left out: everything above needed none.`);
    return;
  }
  await using stack = new AsyncDisposableStack();
  const image = await findImage(docker, stage.dir, stack);
  if (image === undefined) {
    stage.say(
      `The engine at ${host} has no image with a shell, and this machine has no static busybox to make one of:`,
    );
    stage.say('this part is left out. `docker pull busybox` would bring it.');
    return;
  }
  stage.say(`The engine at ${host} runs a container of the image ${image.name}, which writes a file all the time.`);
  stage.say('Its label says that it is to be stopped during a backup: sidehook.hold=stop\n');
  await showHold(stage, docker, image, stack);
}

async function showHold(stage: Stage, docker: Docker, image: Image, stack: AsyncDisposableStack): Promise<void> {
  const { check } = stage;
  const dir = join(stage.dir, 'hold');
  const data = join(dir, 'data');
  const project = basename(dir + stage.dir.slice(-6)).toLowerCase();
  await mkdir(data, { recursive: true });
  const container = await docker.createContainer({
    Image: image.id,
    Entrypoint: ['sh', '-c', WRITER],
    Healthcheck: { Test: ['NONE'] }, // that of the image is for what the image was meant to run
    User: `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`, // or we could not remove what it writes
    // A project of its own, so that nobody else's containers are in scope
    Labels: { 'sidehook.hold': 'stop', 'com.docker.compose.project': project, 'com.docker.compose.service': 'writer' },
    HostConfig: { Binds: [`${data}:/data`], NetworkMode: 'none' },
  });
  stack.defer(() => container.remove({ force: true, v: true }));
  await container.start();
  if (!(await comesTrue(() => isThere(join(data, 'records'))))) {
    stage.say('It sees none of our files: the engine is on another machine. This part is left out.');
    return;
  }
  stack.use(await openSidecar(dir, { scope: project, engine: 'docker' }));

  let torn = 0;
  for (let count = 0; count < 5; count += 1) {
    const { stdout } = await execa('tar', ['-cf', 'careless.tar', '-C', 'data', '.'], { cwd: dir, reject: false }).then(
      () => readRecords(dir, 'careless.tar'),
    );
    if (tornRecordOf(stdout) !== undefined) torn += 1;
    await pause(20 + 7 * count);
  }
  stage.say(`  Without sidehook, tar got a torn record ${torn} times out of 5.\n`);

  const before = (await container.inspect()).State;
  const code = await stage.run('run/sidehook run backup -- tar -cf good.tar -C data .', { cwd: dir });
  const after = (await container.inspect()).State;
  const { birthtimeMs: begunMs, mtimeMs: endedMs } = await stat(join(dir, 'good.tar'));
  const { stdout } = await readRecords(dir, 'good.tar');
  check('the exit code is 0', code === 0);
  check('the container was stopped before tar began', Date.parse(after.FinishedAt) <= begunMs && !before.Dead);
  check('and was started when tar had ended', Date.parse(after.StartedAt) >= endedMs && after.Running);
  const last = tornRecordOf(stdout);
  check(
    `the ${stdout.split('\n').length} records in the archive are whole${last ? `, but ${last}` : ''}`,
    last === undefined,
  );
  const size = (await readFile(join(data, 'records'))).length;
  check('it goes on writing', await comesTrue(async () => (await readFile(join(data, 'records'))).length > size));
}

function readRecords(cwd: string, archive: string): Promise<{ readonly stdout: string }> {
  return execa('tar', ['-xOf', archive, './records'], { cwd, stripFinalNewline: false });
}

/** The first record that is not as it was meant; undefined: all are whole, one after the other. */
function tornRecordOf(text: string): string | undefined {
  const records = text.split('\n');
  if (records.pop() !== '') return records.at(-1) ?? 'no record';
  return records.find((record, index) => record !== `begin-${index + 1} end-${index + 1}`);
}

type Image = { readonly id: string; readonly name: string };

async function findEngine(host: string): Promise<Docker | undefined> {
  const url = URL.parse(host);
  const isSocket = host.startsWith('unix://');
  if (!isSocket && url === null) return undefined;
  const docker = new Docker(isSocket ? { socketPath: host.slice('unix://'.length) } : {});
  const answer = docker.ping().then(
    () => docker,
    () => undefined,
  );
  return Promise.race([answer, pause(PATIENCE_MS, undefined, { ref: false })]);
}

/** Made from this machine's static busybox, or any that the engine has and that has a shell. */
async function findImage(docker: Docker, dir: string, stack: AsyncDisposableStack): Promise<Image | undefined> {
  for (const busybox of BUSYBOXES) {
    if (!(await isThere(busybox))) continue;
    const root = join(dir, 'root');
    await execa('sh', ['-euc', MAKE_ROOT, 'sh', root, busybox]);
    const name = `sidehook-demo:${basename(dir).toLowerCase()}`;
    const [repo, tag] = name.split(':');
    const archive = execa('tar', ['-c', '-C', root, '.'], { buffer: false });
    const answer = await docker.importImage(archive.stdout, { repo, tag });
    await new Promise((resolve) => docker.modem.followProgress(answer, resolve));
    const image = { id: name, name: `made of ${busybox}` };
    stack.defer(() => docker.getImage(name).remove({ force: true }));
    if (await hasShell(docker, image.id)) return image;
  }
  for (const { Id, RepoTags } of (await docker.listImages()).slice(0, 10)) {
    if (await hasShell(docker, Id)) return { id: Id, name: RepoTags?.[0] ?? Id };
  }
  return undefined;
}

const MAKE_ROOT = `
mkdir -p "$1/bin" "$1/tmp"
cp "$2" "$1/bin/busybox"
for name in sh sleep; do ln -s busybox "$1/bin/$name"; done`;

/** Tried out: a busybox may need libraries, an image may be for another architecture. */
async function hasShell(docker: Docker, image: string): Promise<boolean> {
  const container = await docker
    .createContainer({ Image: image, Entrypoint: ['sh', '-c', 'sleep 0.01'], HostConfig: { NetworkMode: 'none' } })
    .catch(() => undefined);
  if (container === undefined) return false;
  try {
    await container.start();
    return (await container.wait()).StatusCode === 0;
  } catch {
    return false;
  } finally {
    await container.remove({ force: true, v: true });
  }
}

async function comesTrue(isSo: () => Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) return false;
    await pause(50);
  }
  return true;
}
