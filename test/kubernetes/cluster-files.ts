/** What the parts of a cluster are started with. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { PAUSE } from './images.ts';
import type { Parts } from './parts.ts';

export type Addresses = { readonly node: string; readonly peer: string };

const USERS = {
  admin: ['admin', 'system:masters'],
  'kube-controller-manager': ['system:kube-controller-manager', ''],
  'kube-scheduler': ['system:kube-scheduler', ''],
  kubelet: ['system:node:node', 'system:nodes'],
} as const satisfies Record<string, readonly [string, string]>;

export type PartName =
  | 'etcd'
  | 'containerd'
  | 'kube-apiserver'
  | 'kubelet'
  | 'kube-controller-manager'
  | 'kube-scheduler';

export type Plan = {
  readonly dir: string;
  readonly addresses: Addresses;
  readonly parts: Parts;
  readonly cgroup: string;
};

/** The files by name: `NAME.sh` starts the part NAME. */
export function configurations(plan: Plan): Readonly<Record<string, string>> {
  const { dir, addresses, parts } = plan;
  const tokens = Object.keys(USERS).map((name) => [name, randomBytes(16).toString('hex')] as const);
  const at = (name: string) => join(dir, name);
  const kubeconfigs = tokens.map(([name, token]) => [`${name}.conf`, kubeconfig(plan, token)] as const);
  const users = tokens.map(([name, token]) => {
    const [user, group] = USERS[name as keyof typeof USERS];
    return `${token},${user},${user},${group}\n`;
  });
  const ours = (program: string, options: Readonly<Record<string, string>>) =>
    `exec ${join(parts.kubernetes, program)} ${flags(options)}\n`;
  return {
    ...Object.fromEntries(kubeconfigs),
    'tokens.csv': users.join(''),
    'etcd.sh': `exec etcd ${flags({ 'data-dir': at('etcd'), 'unsafe-no-fsync': 'true' })}\n`,
    'containerd.sh': `exec containerd --config ${at('containerd.toml')}\n`,
    'containerd.toml': containerdToml(plan),
    'kube-apiserver.sh': ours('kube-apiserver', {
      'etcd-servers': 'http://127.0.0.1:2379',
      'bind-address': '0.0.0.0',
      'secure-port': '443', // so that the service's own address needs no proxy
      'advertise-address': addresses.node,
      'service-cluster-ip-range': '10.96.0.0/16',
      'tls-cert-file': at('api.crt'),
      'tls-private-key-file': at('api.key'),
      'client-ca-file': at('ca.crt'),
      'token-auth-file': at('tokens.csv'),
      'authorization-mode': 'Node,RBAC',
      'enable-admission-plugins': 'NodeRestriction',
      'kubelet-client-certificate': at('api.crt'),
      'kubelet-client-key': at('api.key'),
      'kubelet-preferred-address-types': 'InternalIP',
      'service-account-issuer': 'https://kubernetes.default.svc',
      'service-account-key-file': at('tokens.pub'),
      'service-account-signing-key-file': at('tokens.key'),
      'allow-privileged': 'true',
    }),
    'kube-controller-manager.sh': ours('kube-controller-manager', {
      kubeconfig: at('kube-controller-manager.conf'),
      'cert-dir': at('kube-controller-manager'),
      'use-service-account-credentials': 'true',
      'service-account-private-key-file': at('tokens.key'),
      'root-ca-file': at('ca.crt'),
      'horizontal-pod-autoscaler-sync-period': '1s',
      'leader-elect': 'false',
    }),
    'kube-scheduler.sh': ours('kube-scheduler', {
      kubeconfig: at('kube-scheduler.conf'),
      'cert-dir': at('kube-scheduler'),
      'leader-elect': 'false',
    }),
    'kubelet.sh': ours('kubelet', {
      kubeconfig: at('kubelet.conf'),
      config: at('kubelet.json'),
      'root-dir': at('kubelet'),
      'cert-dir': at('kubelet-pki'),
      'hostname-override': 'node',
      'node-ip': addresses.node,
    }),
    'kubelet.json': JSON.stringify(kubeletConfiguration(plan)),
    'resolv.conf': '',
    'cni/pods.conflist': JSON.stringify(network(plan)),
  };
}

function flags(options: Readonly<Record<string, string>>): string {
  return Object.entries(options)
    .map(([name, value]) => `--${name}=${value}`)
    .join(' ');
}

/** JSON is YAML. */
function kubeconfig({ dir, addresses }: Plan, token: string): string {
  const cluster = { server: `https://${addresses.node}:443`, 'certificate-authority': join(dir, 'ca.crt') };
  return JSON.stringify({
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'test' },
    clusters: [{ name: 'test', cluster }],
    users: [{ name: 'test', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
  });
}

function kubeletConfiguration({ dir, cgroup }: Plan): object {
  return {
    ...{ apiVersion: 'kubelet.config.k8s.io/v1beta1', kind: 'KubeletConfiguration' },
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: false },
      x509: { clientCAFile: join(dir, 'ca.crt') },
    },
    authorization: { mode: 'AlwaysAllow' }, // the API server alone has a certificate
    containerRuntimeEndpoint: `unix://${join(dir, 'containerd.sock')}`,
    ...{ cgroupDriver: 'cgroupfs', cgroupRoot: cgroup, failCgroupV1: false, failSwapOn: false },
    podLogsDir: join(dir, 'pods'),
    volumePluginDir: join(dir, 'volume-plugins'),
    resolvConf: join(dir, 'resolv.conf'),
    makeIPTablesUtilChains: false,
    oomScoreAdj: 0,
    // The machine's disk may be as full as it likes
    evictionHard: Object.fromEntries(
      ['memory.available', 'nodefs.available', 'nodefs.inodesFree', 'imagefs.available'].map((name) => [name, '0%']),
    ),
    imageGCHighThresholdPercent: 100,
  };
}

function network({ dir }: Plan): object {
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.244.0.0/24' }]], dataDir: join(dir, 'addresses') };
  const routes = [{ dst: '0.0.0.0/0' }];
  const plugin = { type: 'bridge', bridge: 'pods', isGateway: true, ipMasq: false, ipam: { ...ipam, routes } };
  return { cniVersion: '1.0.0', name: 'pods', plugins: [plugin] };
}

function containerdToml({ dir, parts }: Plan): string {
  return `
    version = 2
    root = "${dir}/containerd"
    state = "${dir}/containerd-state"
    [grpc]
      address = "${dir}/containerd.sock"
    [plugins."io.containerd.grpc.v1.cri"]
      sandbox_image = "${PAUSE}"
      restrict_oom_score_adj = true
      [plugins."io.containerd.grpc.v1.cri".cni]
        bin_dir = "${parts.cni}"
        conf_dir = "${dir}/cni"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.internal.v1.opt"]
      path = "${dir}/opt"
  `;
}
