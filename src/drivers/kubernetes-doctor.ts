/** What `doctor` finds out from the API: which verbs the Role lacks, and how our own pod is made. */
import type { EngineUse, Finding } from '../core/finding.ts';
import type { Api } from './kubernetes-api.ts';
import { getOne, type Pod, pathOf } from './kubernetes-objects.ts';

/** One rule of the Role. */
type Rule = {
  readonly group: string;
  readonly resource: string;
  readonly verbs: readonly string[];
  /** Undefined: always. */
  readonly use?: EngineUse;
  /** What is lost without it, where we can do without. */
  readonly without?: string;
};

const RULES: readonly Rule[] = [
  { group: '', resource: 'pods', verbs: ['get', 'list'] },
  { group: 'apps', resource: 'deployments', verbs: ['get', 'list', 'watch'] },
  { group: 'apps', resource: 'statefulsets', verbs: ['get', 'list', 'watch'] },
  { group: 'apps', resource: 'replicasets', verbs: ['list'] },
  { group: 'coordination.k8s.io', resource: 'leases', verbs: ['get', 'list', 'create', 'update', 'delete'] },
  { group: '', resource: 'pods/exec', verbs: ['create', 'get'], use: 'exec' },
  { group: 'apps', resource: 'deployments/scale', verbs: ['get', 'update'], use: 'scale' },
  { group: 'apps', resource: 'statefulsets/scale', verbs: ['get', 'update'], use: 'scale' },
  {
    ...{ group: 'autoscaling', resource: 'horizontalpodautoscalers', verbs: ['list'] },
    without: 'nobody is told of an autoscaler that would scale a held workload up again',
  },
];

/** What nobody may who only backs up: each is the right to run any image, or to read any password. */
const TOO_MUCH: readonly Rule[] = [
  { group: '', resource: 'secrets', verbs: ['get'] },
  { group: '', resource: 'pods', verbs: ['create'] },
  { group: 'apps', resource: 'deployments', verbs: ['patch', 'update'] },
  { group: 'apps', resource: 'statefulsets', verbs: ['patch', 'update'] },
];

/** `Driver.examine`. */
export async function examine(
  { api, ownPod }: { readonly api: Api; readonly ownPod: string | undefined },
  uses: readonly EngineUse[],
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const engine = await examineEngine(api, signal);
  const rules = await Promise.all(RULES.map((rule) => examineRule(api, rule, uses, signal)));
  const granted = await Promise.all(TOO_MUCH.map((rule) => grantedOf(api, rule, signal)));
  const excess = TOO_MUCH.flatMap(({ resource }, index) => (granted[index] ?? []).map((verb) => `${verb} ${resource}`));
  const findings = [engine, ...rules];
  if (excess.length > 0)
    findings.push({
      ...{ what: 'permissions', level: 'warn' },
      says: `more than is needed, which a hook could use: ${excess.join(', ')}: give it a service account of its own`,
    });
  return [...findings, ...(await examinePod(api, ownPod, signal))];
}

async function examineEngine(api: Api, signal: AbortSignal): Promise<Finding> {
  const question = { doing: 'ask the API for its version', path: '/version', accept: [401, 403], signal };
  const { status, body } = await api.ask(question);
  const { gitVersion } = status < 300 ? (body as { readonly gitVersion?: string }) : {};
  return { what: 'engine', level: 'ok', says: `Kubernetes ${gitVersion ?? ''}, namespace ${api.namespace}` };
}

async function examineRule(api: Api, rule: Rule, uses: readonly EngineUse[], signal: AbortSignal): Promise<Finding> {
  const { group, resource, verbs, use, without } = rule;
  const what = `permission on ${resource}`;
  const granted = await grantedOf(api, rule, signal);
  const missing = verbs.filter((verb) => !granted.includes(verb));
  if (missing.length === 0) return { what, level: 'ok', says: `granted: ${verbs.join(', ')}` };
  const lacking = `{apiGroups: ['${group}'], resources: [${resource}], verbs: [${missing.join(', ')}]}`;
  const says = `refused in namespace ${api.namespace}: add to the Role: ${lacking}`;
  if (without !== undefined) return { what, level: 'warn', says: `${says}; without it, ${without}` };
  const isUsed = use === undefined || uses.includes(use);
  return isUsed ? { what, level: 'fail', says } : { what, level: 'warn', says: `${says}; nothing uses it yet` };
}

/** The verbs that the API says we have. Everybody may ask that of himself. */
async function grantedOf(api: Api, { group, resource, verbs }: Rule, signal: AbortSignal): Promise<readonly string[]> {
  const [kind = '', subresource = ''] = resource.split('/');
  const asked = verbs.map(async (verb) => {
    const attributes = { namespace: api.namespace, verb, group, resource: kind, subresource };
    const body = {
      ...{ apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectAccessReview' },
      spec: { resourceAttributes: attributes },
    };
    const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
    const answer = await api.ask({
      doing: `ask whether we may ${verb} ${resource}`,
      method: 'POST',
      path,
      body,
      signal,
    });
    const { status } = (answer.body ?? {}) as { readonly status?: { readonly allowed?: boolean } };
    return status?.allowed === true ? [verb] : [];
  });
  return (await Promise.all(asked)).flat();
}

const DEFAULT_GRACE_S = 30;
const ENOUGH_GRACE_S = 60;
const TOKEN_PLACE = '/var/run/secrets/kubernetes.io/serviceaccount';

/** As much of a container as tells who else has our token. */
type Mounting = { readonly name: string; readonly volumeMounts?: readonly { readonly mountPath: string }[] };

async function examinePod(api: Api, ownPod: string | undefined, signal: AbortSignal): Promise<readonly Finding[]> {
  const what = 'sidecar';
  if (ownPod === undefined) return [{ what, level: 'ok', says: 'runs in no pod of this cluster' }];
  const pod = await getOne<Pod>(api, pathOf(api, 'pods', ownPod), `look for pod ${ownPod}`, signal).catch(
    () => undefined,
  );
  if (pod === undefined) {
    const advice = 'set POD_NAME from metadata.name, so that it is never held itself';
    return [{ what, level: 'warn', says: `pod ${ownPod}, which it takes for its own, cannot be looked at: ${advice}` }];
  }
  return [{ what, level: 'ok', says: `pod ${ownPod}` }, graceOf(pod), tokenOf(pod)];
}

function graceOf({ spec: { terminationGracePeriodSeconds: seconds = DEFAULT_GRACE_S } }: Pod): Finding {
  const what = 'termination grace period';
  if (seconds >= ENOUGH_GRACE_S) return { what, level: 'ok', says: `${seconds}s` };
  const advice = 'set terminationGracePeriodSeconds to 60 or more';
  return { what, level: 'warn', says: `${seconds}s, too short to scale up again all that it may hold: ${advice}` };
}

/** Whoever has the token can do all that the sidecar can. */
function tokenOf({ spec }: Pod): Finding {
  const what = 'token';
  const all = [...spec.containers, ...(spec.initContainers ?? [])] as readonly Mounting[];
  const having = all.filter(({ volumeMounts = [] }) => volumeMounts.some(({ mountPath }) => mountPath === TOKEN_PLACE));
  if (having.length <= 1) return { what, level: 'ok', says: 'no other container of the pod has it' };
  const advice = 'automountServiceAccountToken: false, and a projected volume in the sidecar alone';
  return { what, level: 'fail', says: `containers ${having.map(({ name }) => name).join(' and ')} have it: ${advice}` };
}
