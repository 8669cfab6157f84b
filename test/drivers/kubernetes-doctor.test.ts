import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { EngineUse, Finding } from '../../src/core/finding.ts';
import type { Fault } from '../support/api-server.ts';
import { type KubernetesBench, openKubernetesBench } from './kubernetes-bench.ts';

/** What the Role of the chart grants with all features on: `verb group/resource`. */
const ROLE: Readonly<Record<string, readonly string[]>> = {
  '/pods': ['get', 'list'],
  '/pods/exec': ['create', 'get'],
  'apps/deployments': ['get', 'list', 'watch'],
  'apps/statefulsets': ['get', 'list', 'watch'],
  'apps/replicasets': ['list'],
  'apps/deployments/scale': ['get', 'update'],
  'apps/statefulsets/scale': ['get', 'update'],
  'coordination.k8s.io/leases': ['get', 'list', 'create', 'update', 'delete'],
  'autoscaling/horizontalpodautoscalers': ['list'],
};

type Attributes = { readonly [name in 'namespace' | 'verb' | 'group' | 'resource' | 'subresource']: string };

/** Answers as the API does for an account with this Role, in its own namespace alone. */
function authorize(server: KubernetesBench['server'], role: Readonly<Record<string, readonly string[]>>): void {
  server.state.script = ({ path, body }): Fault | undefined => {
    if (path === '/version') return { status: 200, body: { gitVersion: 'v1.34.1' } };
    if (path !== '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews') return undefined;
    const { spec } = body as { readonly spec: { readonly resourceAttributes: Attributes } };
    const { namespace, verb, group, resource, subresource } = spec.resourceAttributes;
    const name = `${group}/${resource}${subresource === '' ? '' : `/${subresource}`}`;
    const allowed = namespace === server.namespace && (role[name] ?? []).includes(verb);
    return { status: 201, body: { kind: 'SelfSubjectAccessReview', status: { allowed } } };
  };
}

async function examine(
  role: typeof ROLE,
  uses: readonly EngineUse[],
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  await using bench = await openKubernetesBench();
  authorize(bench.server, role);
  return await bench.driver.examine(uses, signal); // awaited before the bench is taken away
}

const odd = (findings: readonly Finding[]) => findings.filter(({ level }) => level !== 'ok');

describe('doctor in a cluster', () => {
  it('finds nothing to mend with the Role of the chart', async ({ signal }) => {
    const findings = await examine(ROLE, ['exec', 'scale'], signal);
    assert.deepEqual(odd(findings), []);
    assert.equal(findings[0]?.says, 'Kubernetes v1.34.1, namespace shop');
  });

  it('names the rule that is missing, verb by verb', async ({ signal }) => {
    for (const [name, verbs] of Object.entries(ROLE)) {
      for (const verb of verbs) {
        const role = { ...ROLE, [name]: verbs.filter((other) => other !== verb) };
        const found = odd(await examine(role, ['exec', 'scale'], signal));
        const [group = '', ...rest] = name.split('/');
        const rule = `{apiGroups: ['${group}'], resources: [${rest.join('/')}], verbs: [${verb}]}`;
        assert.equal(found.length, 1, `${verb} ${name}: ${JSON.stringify(found)}`);
        assert.ok(found[0]?.says.includes(rule), found[0]?.says);
        assert.equal(found[0]?.level, name.includes('autoscalers') ? 'warn' : 'fail');
      }
    }
  });

  it('warns of what nothing uses yet', async ({ signal }) => {
    const { '/pods/exec': _, 'apps/deployments/scale': __, ...role } = ROLE;
    const found = odd(await examine(role, [], signal));
    assert.deepEqual(
      found.map(({ what, level }) => [what, level]),
      [
        ['permission on pods/exec', 'warn'],
        ['permission on deployments/scale', 'warn'],
      ],
    );
  });

  it('warns of more than it needs', async ({ signal }) => {
    const role = { ...ROLE, '/secrets': ['get'], 'apps/deployments': ['get', 'list', 'watch', 'patch'] };
    const [found, ...more] = odd(await examine(role, ['exec', 'scale'], signal));
    assert.deepEqual(more, []);
    assert.match(found?.says ?? '', /get secrets, patch deployments/);
  });

  it('looks at its own pod: its time to end, and who else has its token', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    authorize(bench.server, ROLE);
    const [pod] = bench.server.all('pods');
    assert.ok(pod !== undefined);
    const volumeMounts = [{ name: 'token', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' }];
    const sidecar = { name: 'sidehook', restartPolicy: 'Always', volumeMounts };
    pod.spec = { ...pod.spec, initContainers: [sidecar], terminationGracePeriodSeconds: 30 };
    const env = {
      KUBECONFIG: join(bench.dir, 'kubeconfig'),
      KUBERNETES_SERVICE_HOST: 'x',
      POD_NAME: pod.metadata.name,
    };
    await using driver = bench.open('other', { env });
    const found = odd(await driver.examine(['scale'], signal));
    assert.deepEqual(
      found.map(({ what }) => what),
      ['termination grace period'],
    );

    pod.spec = { ...pod.spec, containers: [{ name: 'backup', volumeMounts }], terminationGracePeriodSeconds: 300 };
    const exposed = odd(await driver.examine(['scale'], signal));
    assert.match(exposed[0]?.says ?? '', /containers backup and sidehook have it/);
  });

  it('is away when the API does not answer', async ({ signal }) => {
    await using bench = await openKubernetesBench();
    bench.server.setDown(true);
    await assert.rejects(bench.driver.examine([], signal), { code: 'engine-unavailable' });
  });
});
