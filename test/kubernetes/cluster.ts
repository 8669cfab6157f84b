import { randomBytes, randomInt } from 'node:crypto';
import { mkdir, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { until } from '../support/until.ts';
import { type Addresses, configurations, type PartName } from './cluster-files.ts';
import { prepareParts } from './parts.ts';

const LEASH = join(import.meta.dirname, 'cluster-leash.sh');
const START_MS = 180_000;

/** A cluster of one node, on a leash (cluster-leash.sh). Another one, or an engine, next to it is not disturbed. */
export type Cluster = AsyncDisposable & {
  /** Of somebody who may do everything. */
  readonly kubeconfig: string;
  /** What a process needs to reach it: KUBECONFIG, the socket of containerd, and where kubectl and ctr are. */
  readonly env: Readonly<Record<string, string>>;
  /** Loads an image: the folder of an archive that `makeImage` wrote. */
  load(archive: string): Promise<void>;
};

/** Starts a throw-away cluster. What it leaves when it cannot start is only the thrown error. */
export async function openCluster(images: readonly string[]): Promise<Cluster> {
  const parts = await prepareParts();
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-cluster-'));
  const addresses = await freeAddresses();
  const link = `shk${randomBytes(4).toString('hex')}`;
  const args = [dir, link, addresses.node, addresses.peer];
  const child = execa(LEASH, args, {
    ...{ stdin: 'pipe', stdout: 'inherit', stderr: 'inherit', reject: false },
    ...{ detached: true, cleanup: false, env: { PATH: parts.path }, extendEnv: false },
  });
  child.stdin.on('error', () => undefined); // EPIPE: `ended` tells
  let over = false;
  const ended = child.then(() => {
    over = true;
  });
  const close = async (): Promise<void> => {
    child.stdin.end();
    await ended;
  };
  const start = (name: PartName) => child.stdin.write(`start ${name}\n`);
  const isThere = (name: string) =>
    stat(join(dir, name)).then(
      () => true,
      () => false,
    );

  /** Waits for a part, and sees its end, or the leash's. */
  async function ready(name: PartName | 'leash', probe: () => Promise<boolean>): Promise<void> {
    const isSettled = async () => (await probe()) || over || (await isThere(`${name}.ended`)) || isThere('failed');
    await until(isSettled, { what: `${name} to start`, deadlineMs: START_MS, everyMs: 200 });
    if (!(await probe())) throw new Error(`${name} ended at once`);
  }

  try {
    await ready('leash', () => isThere('ready'));
    await writeKeys(dir, addresses, parts.path);
    const files = configurations({ dir, addresses, parts, cgroup: `/${basename(dir)}` });
    for (const name of ['pods', 'cni']) await mkdir(join(dir, name));
    for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text, { mode: 0o600 });

    const kubeconfig = join(dir, 'admin.conf');
    const socket = join(dir, 'containerd.sock');
    const PATH = `${parts.kubernetes}:${process.env.PATH}:${parts.path}`;
    const env = { KUBECONFIG: kubeconfig, CONTAINERD_ADDRESS: socket, CONTAINERD_NAMESPACE: 'k8s.io', PATH };
    const tool = (program: string, ...words: string[]) =>
      execa(program, words, { env, reject: false, timeout: 20_000, stdin: 'ignore' });
    const works = async (...words: [string, ...string[]]) => !(await tool(...words)).failed;

    start('etcd');
    start('containerd');
    start('kube-apiserver');
    await ready('containerd', () => works('ctr', 'version'));
    const load = async (archive: string) => {
      const script = 'tar --create manifest.json config.json layer.tar | ctr images import - >/dev/null';
      await execa('sh', ['-euc', script], { cwd: archive, env });
    };
    const loading = (async () => {
      for (const image of images) await load(image);
    })();
    loading.catch(() => undefined); // what comes before may fail first, and then this fails for that
    await ready('kube-apiserver', () => works('kubectl', 'get', '--raw', '/readyz'));
    for (const name of ['kube-controller-manager', 'kube-scheduler'] as const) start(name);
    await loading;
    start('kubelet');
    const condition = '--for=condition=Ready';
    await ready('kubelet', () => works('kubectl', 'wait', 'node/node', condition, '--timeout=10s'));
    await ready('kube-controller-manager', () => works('kubectl', 'get', 'serviceaccount', 'default'));
    return { kubeconfig, env, load, [Symbol.asyncDispose]: close };
  } catch (error) {
    const logs = await tailsOf(dir);
    await close();
    throw new Error(`start a throw-away cluster:\n${logs}`, { cause: error });
  }
}

/** Two neighbours in the range that is set apart for tests of networks, and that this machine does not use. */
async function freeAddresses(): Promise<Addresses> {
  const { stdout } = await execa('ip', ['-oneline', 'address']);
  for (;;) {
    const net = `198.${18 + randomInt(2)}.${randomInt(256)}`;
    const first = 4 * randomInt(64);
    if (!stdout.includes(` ${net}.`)) return { peer: `${net}.${first + 1}`, node: `${net}.${first + 2}` };
  }
}

/** One authority, which signs the API server's certificate (it also shows it to the kubelet), and a key for tokens. */
async function writeKeys(dir: string, { node }: Addresses, PATH: string): Promise<void> {
  const names = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'localhost'].map(
    (name) => `DNS:${name}`,
  );
  const all = [...names, ...['10.96.0.1', '127.0.0.1', node].map((address) => `IP:${address}`)];
  const script = `
    openssl ecparam -genkey -name prime256v1 -noout -out ca.key
    openssl ecparam -genkey -name prime256v1 -noout -out api.key
    openssl ecparam -genkey -name prime256v1 -noout -out tokens.key
    openssl ec -in tokens.key -pubout -out tokens.pub
    openssl req -x509 -new -key ca.key -subj /CN=sidehook-test -days 30 -out ca.crt
    openssl req -new -key api.key -subj /O=system:masters/CN=kube-apiserver -out api.csr
    printf 'subjectAltName=%s\\nextendedKeyUsage=serverAuth,clientAuth\\n' "$1" >api.ext
    openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile api.ext -out api.crt`;
  await execa('sh', ['-euc', script, 'sh', all.join(',')], { cwd: dir, env: { PATH } });
}

async function tailsOf(dir: string): Promise<string> {
  const names = ['etcd', 'containerd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet'];
  const files = ['failed', ...names.map((name) => `${name}.log`)];
  const tails = files.map(async (name) => {
    const text = await readFile(join(dir, name), 'utf8').catch(() => undefined);
    return text === undefined ? '' : `${name}:\n${text.trim().split('\n').slice(-15).join('\n')}\n`;
  });
  return (await Promise.all(tails)).join('');
}
