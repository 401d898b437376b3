"""How the demo data are made: meshes, renders, words, noise, icons, clip art, and the split."""
