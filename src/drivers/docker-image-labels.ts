import type { Note } from '../core/ports.ts';
import type { Lookout } from './docker-look.ts';
import { hasOwnLabels, type Inspected } from './docker-workload.ts';

const MOST_IMAGES = 1000;

type ImageLabels = {
  /** By image id. */
  readonly labels: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly notes: readonly Note[];
};

/** What the images of labelled containers say themselves: an image's author is not the operator. */
export async function readImageLabels(
  { api, imageLabels: labels }: Pick<Lookout, 'api' | 'imageLabels'>,
  containers: Iterable<Inspected>,
  signal: AbortSignal,
): Promise<ImageLabels> {
  const labelled = [...containers].filter(({ Config }) => hasOwnLabels(Config.Labels));
  const byImage = Map.groupBy(labelled, ({ Image = '' }) => Image);
  byImage.delete('');
  const notes: Note[] = [];
  if (labels.size > MOST_IMAGES) labels.clear();
  const read = async ([image, users]: [string, readonly Inspected[]]): Promise<void> => {
    const path = `/images/${encodeURIComponent(image)}/json`;
    const { status, body } = await api.ask({ doing: `inspect image ${image}`, path, accept: [404], signal });
    const { Config } = (body ?? {}) as { readonly Config?: { readonly Labels?: Record<string, string> | null } };
    if (status !== 404) labels.set(image, Config?.Labels ?? {});
    else
      for (const { Name } of users)
        notes.push(`container ${Name.slice(1)}: its image is gone: its labels count as its operator's`);
  };
  await Promise.all([...byImage].filter(([image]) => !labels.has(image)).map(read));
  return { labels, notes };
}
