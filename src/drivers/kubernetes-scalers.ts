/** Whoever else decides how many replicas there are. */
import { OperationalError } from '../core/errors.ts';
import type { Note } from '../core/ports.ts';
import type { Api } from './kubernetes-api.ts';
import { type Controller, type ControllerKind, listAll, type Metadata, pathOf } from './kubernetes-objects.ts';
import { labelsOfAnnotations } from './kubernetes-workload.ts';

type Autoscaler = {
  readonly metadata: Metadata;
  readonly spec: {
    readonly minReplicas?: number;
    readonly scaleTargetRef: { readonly kind: string; readonly name: string };
  };
};

type Owned = { readonly kind: ControllerKind; readonly controller: Controller };

/**
 * Names, for each workload whose template asks for a hold, the autoscaler or the operator that may scale it up again.
 * An autoscaler leaves alone what is at 0, unless it may itself scale to 0, as those of KEDA do.
 */
export async function notesOfScalers(api: Api, owned: readonly Owned[], signal: AbortSignal): Promise<readonly Note[]> {
  const wanted = owned.filter(({ controller }) =>
    Object.hasOwn(labelsOfAnnotations(controller.spec.template.metadata?.annotations), 'sidehook.hold'),
  );
  if (wanted.length === 0) return [];
  const notes: Note[] = wanted.flatMap(({ kind, controller }) => {
    const operator = controller.metadata.ownerReferences?.find((one) => one.controller === true);
    if (operator === undefined) return [];
    return [
      `${kind}/${controller.metadata.name} belongs to ${operator.kind} ${operator.name}, which may scale it up again while it is held: pause that`,
    ];
  });
  try {
    const autoscalers = await listAll<Autoscaler>(api, pathOf(api, 'horizontalpodautoscalers'), signal);
    for (const { metadata, spec } of autoscalers) {
      const { kind, name } = spec.scaleTargetRef;
      const target = wanted.find((one) => one.kind === kind.toLowerCase() && one.controller.metadata.name === name);
      if (target === undefined) continue;
      const { 'scaledobject.keda.sh/name': scaledObject } = metadata.labels ?? {};
      if (scaledObject !== undefined) {
        notes.push(
          `${target.kind}/${name}: ScaledObject ${scaledObject} of KEDA may scale it up again while it is held: annotate it with autoscaling.keda.sh/paused`,
        );
      } else if (spec.minReplicas === 0) {
        notes.push(
          `${target.kind}/${name}: autoscaler ${metadata.name} has minReplicas 0, and may scale it up again while it is held`,
        );
      } else {
        notes.push(
          `${target.kind}/${name}: autoscaler ${metadata.name} leaves it alone while it is held at 0, and goes on from as many replicas as are found now`,
        );
      }
    }
  } catch (error) {
    if (!(error instanceof OperationalError) || error.code !== 'refused') throw error;
    notes.push(`autoscalers cannot be looked for: ${error.message}`);
  }
  return notes;
}
