"""Aspirin at 300 K: the shipped student advances, GFN2-xTB corrects it every 6 fs. About two minutes on one core."""

from mlff_sim import RunConfig, run, validate

config = RunConfig(
    "aspirin",
    teacher="gfn2-xtb",
    student="aspirin-gfn2",
    k_steps=12,
    duration_ps=5.0,
    friction_per_ps=5.0,
    equilibrate_ps=0.5,
    seed=1,
)
folder = run(config, "runs/example-aspirin", resume=True)
results = validate(folder)
print("verdict:", results["verdict"])  # "inconclusive" is the honest answer to so short a run
print(f"{results['speedup']['measured']:.1f} times faster than the teacher alone at {config.timestep_fs} fs")
print(
    f"{results['temperature_K']['mean']:.0f} +- {results['temperature_K']['stderr']:.0f} K; plots in {folder}/report.html"
)
