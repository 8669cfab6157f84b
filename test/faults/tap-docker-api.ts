/** Stands in for src/drivers/docker-api.ts: the same engine, with a point before and after every call. */
import { type Api, openApi as open, type Question } from '../../src/drivers/docker-api.ts';
import { between, tellApart } from './tap-points.ts';

// biome-ignore lint/performance/noBarrelFile: it stands in for the module, with all that it has
export * from '../../src/drivers/docker-api.ts';

export async function openApi(...args: Parameters<typeof open>): Promise<Api> {
  const api = await open(...args);
  return {
    ...api,
    ask: (question) => between(nameOf(question), () => api.ask(question)),
    open: (question) => between(nameOf(question), () => api.open(question)),
  };
}

function nameOf({ method = 'GET', path }: Question): string {
  return `engine ${method} ${tellApart(path)}`;
}
